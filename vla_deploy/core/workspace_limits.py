# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Where links may be, as data: `workspace` in `config/<robot>/joint_limits.yaml`, optional.

    workspace:
      table:                                   # a name of your own, which violations give
        links: [fr3_hand_tcp]                  # the origins of these links are held inside
        half_space: {normal: [0, 0, 1], offset: 0.0}   # inside: normal . p >= offset
        margin: 0.03                           # optional: m kept to every boundary
        source: 'table top, measured'
      cell:
        links: [fr3_hand_tcp, fr3_link5]
        box: {lower: [-0.2, -0.7, 0.0], upper: [0.9, 0.7, 1.2]}
        source: 'guard fence'

In m, in the frame of the robot description's root link.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vla_deploy.core.urdf import Triple, Urdf, UrdfJoint

REGION_KEYS = ('links', 'half_space', 'box', 'margin', 'source')
HALF_SPACE_KEYS = ('normal', 'offset')
BOX_KEYS = ('lower', 'upper')
AXES: tuple[Triple, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class WorkspaceError(ValueError):
    """A region is wrong; one line that names the key."""


@dataclass(frozen=True)
class Region:
    """Half-spaces that the origins of some links must all be in: normal . p >= offset [m]."""

    name: str
    links: tuple[str, ...]
    normals: tuple[Triple, ...]
    offsets: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class WorkspaceLimits:
    """The regions, and the joints of the description that place the links."""

    regions: tuple[Region, ...]
    joints: tuple[UrdfJoint, ...]

    @property
    def urdf(self) -> Urdf:
        """The description that the links are found in."""
        return Urdf('', {joint.name: joint for joint in self.joints})


Known = Callable[[Mapping[str, Any], Sequence[str], str], None]


def read_workspace(entries: object, urdf: Urdf, known: Known) -> WorkspaceLimits:
    """Read the parsed value of `workspace`; `known` raises for a key that is not in a list.

    Raises WorkspaceError. That the links exist is found out when they are placed
    (core/workspace.py).
    """
    if not isinstance(entries, Mapping) or not entries:
        raise WorkspaceError('workspace must be a mapping of regions by name')
    regions = []
    for name, entry in entries.items():
        where = f'workspace.{name}'
        if not isinstance(entry, Mapping):
            raise WorkspaceError(f'{where} must be a mapping, not {entry!r}')
        known(entry, REGION_KEYS, f'{where}.')
        regions.append(_region(str(name), entry, where, known))
    return WorkspaceLimits(tuple(regions), tuple(urdf.joints.values()))


def _region(name: str, entry: Mapping[str, Any], where: str, known: Known) -> Region:
    links, source = entry.get('links'), entry.get('source')
    if not isinstance(links, list) or not links or not all(isinstance(x, str) for x in links):
        raise WorkspaceError(f'{where}.links must be a list of links')
    if not isinstance(source, str) or not source.strip():
        raise WorkspaceError(f'{where}.source must say where the figures come from')
    if ('box' in entry) == ('half_space' in entry):
        raise WorkspaceError(f'{where} needs either box or half_space')
    margin = _number(entry.get('margin', 0.0), f'{where}.margin')
    if margin < 0.0:
        raise WorkspaceError(f'{where}.margin is {margin:g}, below 0')
    if 'half_space' in entry:
        normals, offsets = _half_space(entry['half_space'], f'{where}.half_space', known)
    else:
        normals, offsets = _box(entry['box'], margin, f'{where}.box', known)
    offsets = tuple(offset + margin for offset in offsets)
    return Region(name, tuple(links), normals, offsets, source)


def _half_space(
    given: object, where: str, known: Known
) -> tuple[tuple[Triple, ...], tuple[float, ...]]:
    values = _mapping(given, HALF_SPACE_KEYS, where, known)
    x, y, z = _triple(values['normal'], f'{where}.normal')
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-9:
        raise WorkspaceError(f'{where}.normal has no length')
    normal = (x / length, y / length, z / length)
    return (normal,), (_number(values['offset'], f'{where}.offset'),)


def _box(
    given: object, margin: float, where: str, known: Known
) -> tuple[tuple[Triple, ...], tuple[float, ...]]:
    values = _mapping(given, BOX_KEYS, where, known)
    lower, upper = (_triple(values[key], f'{where}.{key}') for key in BOX_KEYS)
    for axis, low, high in zip('xyz', lower, upper, strict=True):
        if low + margin >= high - margin:
            raise WorkspaceError(f'{where}: lower {low:g} is not below upper {high:g} along '
                                 f'{axis}, margins included')
    inward = tuple((-x, -y, -z) for x, y, z in AXES)
    return (*AXES, *inward), (*lower, *(-value for value in upper))


def _mapping(given: object, keys: Sequence[str], where: str, known: Known) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise WorkspaceError(f'{where} must be a mapping of {" and ".join(keys)}')
    known(given, keys, f'{where}.')
    for key in keys:
        if key not in given:
            raise WorkspaceError(f'{where}.{key} is missing')
    return given


def _triple(value: object, where: str) -> Triple:
    if not isinstance(value, list) or len(value) != 3:
        raise WorkspaceError(f'{where} must be three numbers, not {value!r}')
    x, y, z = (_number(item, where) for item in value)
    return x, y, z


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WorkspaceError(f'{where} must be a number, not {value!r}')
    if not math.isfinite(value):
        raise WorkspaceError(f'{where} must be finite, not {value!r}')
    return float(value)
