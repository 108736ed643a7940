# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Joints and their limits out of a URDF, by the standard library's XML parser.

Only what the guard and kinematics need is read. A document type or entity is refused before
parsing, so that a hostile file cannot expand in memory.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import overload

MAX_BYTES = 2 * 1024 * 1024  # read within a second; most robots have a tenth of it

MOVING_TYPES = ('revolute', 'prismatic', 'continuous')
KNOWN_TYPES = (*MOVING_TYPES, 'fixed', 'floating', 'planar')

Triple = tuple[float, float, float]


class UrdfError(ValueError):
    """The robot description cannot be used; one line that names joint and key."""


@dataclass(frozen=True)
class UrdfJoint:
    """One joint; lengths in m, angles in rad. None where the description says nothing.

    `origin_xyz` and `origin_rpy` place the joint's frame in the parent link's; `rpy` is a rotation
    about the fixed x, y and z axes in turn. `axis` has length 1. A joint that mimics is at
    mimic_multiplier * q + mimic_offset, where q is the position of the joint that it names.
    """

    name: str
    kind: str
    lower: float | None = None
    upper: float | None = None
    velocity: float | None = None
    effort: float | None = None
    soft_lower: float | None = None
    soft_upper: float | None = None
    mimics: str | None = None
    mimic_multiplier: float = 1.0
    mimic_offset: float = 0.0
    parent: str | None = None
    child: str | None = None
    origin_xyz: Triple = (0.0, 0.0, 0.0)
    origin_rpy: Triple = (0.0, 0.0, 0.0)
    axis: Triple = (1.0, 0.0, 0.0)

    @property
    def unit(self) -> str:
        """Unit of the position."""
        return 'm' if self.kind == 'prismatic' else 'rad'


@dataclass(frozen=True)
class Urdf:
    """A robot description: its name and its joints by name, in the order of the file."""

    name: str
    joints: Mapping[str, UrdfJoint]


def parse_urdf(text: str | bytes) -> Urdf:
    """Read a URDF. Raises UrdfError naming the joint and key at fault."""
    data = text.encode() if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise UrdfError(f'robot description has {len(data)} bytes, more than {MAX_BYTES}')
    if not data.strip():
        raise UrdfError('robot description is empty')
    if b'\0' in data:
        raise UrdfError('robot description must be UTF-8 text without NUL bytes')
    upper = data.upper()
    for word in (b'<!DOCTYPE', b'<!ENTITY'):
        if word in upper:
            raise UrdfError(f'robot description holds {word.decode()}, which is refused')
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UrdfError(f'robot description is not XML: {error}') from error
    if root.tag != 'robot':
        raise UrdfError(f'root element is <{root.tag}>, not <robot>')
    joints: dict[str, UrdfJoint] = {}
    for element in root.findall('joint'):
        joint = _parse_joint(element)
        if joint.name in joints:
            raise UrdfError(f'joint {joint.name!r} is declared twice')
        joints[joint.name] = joint
    if not joints:
        raise UrdfError('robot description has no <joint>')
    for joint in joints.values():
        if joint.mimics is not None and joint.mimics not in joints:
            raise UrdfError(f'joint {joint.name!r}: mimic names unknown joint {joint.mimics!r}')
    return Urdf(root.get('name') or '', joints)


def _parse_joint(element: ElementTree.Element) -> UrdfJoint:
    name = element.get('name')
    if not name:
        raise UrdfError('a <joint> has no name')
    kind = element.get('type')
    if kind not in KNOWN_TYPES:
        raise UrdfError(f'joint {name!r}: type is {kind!r}, not one of {", ".join(KNOWN_TYPES)}')
    mimic = element.find('mimic')
    mimics = None if mimic is None else mimic.get('joint')
    if mimic is not None and not mimics:
        raise UrdfError(f'joint {name!r}: mimic has no joint')
    origin = element.find('origin')
    joint = UrdfJoint(
        name,
        kind,
        mimics=mimics,
        parent=_link(element, 'parent'),
        child=_link(element, 'child'),
        origin_xyz=_triple(origin, 'xyz', name, (0.0, 0.0, 0.0)),
        origin_rpy=_triple(origin, 'rpy', name, (0.0, 0.0, 0.0)),
    )
    if kind not in MOVING_TYPES:
        return joint
    limit, safety = element.find('limit'), element.find('safety_controller')
    if limit is None and kind != 'continuous':
        raise UrdfError(f'joint {name!r}: <limit> is missing')
    joint = replace(
        joint,
        axis=_axis(element, name),
        mimic_multiplier=_number(mimic, 'multiplier', name, 1.0),
        mimic_offset=_number(mimic, 'offset', name, 0.0),
        lower=_number(limit, 'lower', name),
        upper=_number(limit, 'upper', name),
        velocity=_number(limit, 'velocity', name),
        effort=_number(limit, 'effort', name),
        soft_lower=_number(safety, 'soft_lower_limit', name),
        soft_upper=_number(safety, 'soft_upper_limit', name),
    )
    if kind != 'continuous':
        # The URDF specification lets lower and upper default to 0, which would lock the joint
        # silently: both must be written.
        for key, value in (('lower', joint.lower), ('upper', joint.upper)):
            if value is None:
                raise UrdfError(f'joint {name!r}: limit {key} is missing')
    return joint


def _link(element: ElementTree.Element, key: str) -> str | None:
    """Name of the parent or child link; None where it is not said."""
    found = element.find(key)
    return None if found is None else found.get('link')


def _axis(element: ElementTree.Element, joint: str) -> Triple:
    x, y, z = _triple(element.find('axis'), 'xyz', joint, (1.0, 0.0, 0.0), 'axis ')
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-9:
        raise UrdfError(f'joint {joint!r}: axis has no length')
    return x / length, y / length, z / length


def _triple(
    element: ElementTree.Element | None,
    key: str,
    joint: str,
    default: Triple,
    what: str = 'origin ',
) -> Triple:
    text = None if element is None else element.get(key)
    if text is None:
        return default
    words = text.split()
    if len(words) != 3:
        raise UrdfError(f'joint {joint!r}: {what}{key} is {text!r}, not three numbers')
    x, y, z = (_finite(word, what + key, joint) for word in words)
    return x, y, z


@overload
def _number(
    element: ElementTree.Element | None, key: str, joint: str, default: float
) -> float: ...
@overload
def _number(
    element: ElementTree.Element | None, key: str, joint: str, default: None = None
) -> float | None: ...
def _number(
    element: ElementTree.Element | None, key: str, joint: str, default: float | None = None
) -> float | None:
    text = None if element is None else element.get(key)
    return default if text is None else _finite(text, key, joint)


def _finite(text: str, key: str, joint: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise UrdfError(f'joint {joint!r}: {key} is {text!r}, not a number') from error
    if not math.isfinite(value):
        raise UrdfError(f'joint {joint!r}: {key} is {text!r}, not finite')
    return value
