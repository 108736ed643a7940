# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Joints and their limits out of a URDF, by the standard library's XML parser.

Only what the guard needs is read. A document type or entity is refused before parsing, so that a
hostile file cannot expand in memory.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass

MAX_BYTES = 16 * 1024 * 1024

MOVING_TYPES = ('revolute', 'prismatic', 'continuous')
KNOWN_TYPES = (*MOVING_TYPES, 'fixed', 'floating', 'planar')


class UrdfError(ValueError):
    """The robot description cannot be used; one line that names joint and key."""


@dataclass(frozen=True)
class UrdfJoint:
    """One joint; lengths in m, angles in rad. None where the description says nothing."""

    name: str
    kind: str
    lower: float | None = None
    upper: float | None = None
    velocity: float | None = None
    effort: float | None = None
    soft_lower: float | None = None
    soft_upper: float | None = None
    mimics: str | None = None

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
    if kind not in MOVING_TYPES:
        return UrdfJoint(name, kind, mimics=mimics)
    limit, safety = element.find('limit'), element.find('safety_controller')
    if limit is None and kind != 'continuous':
        raise UrdfError(f'joint {name!r}: <limit> is missing')
    joint = UrdfJoint(
        name,
        kind,
        lower=_number(limit, 'lower', name),
        upper=_number(limit, 'upper', name),
        velocity=_number(limit, 'velocity', name),
        effort=_number(limit, 'effort', name),
        soft_lower=_number(safety, 'soft_lower_limit', name),
        soft_upper=_number(safety, 'soft_upper_limit', name),
        mimics=mimics,
    )
    if kind != 'continuous':
        # The URDF specification lets lower and upper default to 0, which would lock the joint
        # silently: both must be written.
        for key, value in (('lower', joint.lower), ('upper', joint.upper)):
            if value is None:
                raise UrdfError(f'joint {name!r}: limit {key} is missing')
    return joint


def _number(element: ElementTree.Element | None, key: str, joint: str) -> float | None:
    text = None if element is None else element.get(key)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise UrdfError(f'joint {joint!r}: {key} is {text!r}, not a number') from error
    if not math.isfinite(value):
        raise UrdfError(f'joint {joint!r}: {key} is {text!r}, not finite')
    return value
