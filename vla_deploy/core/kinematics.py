# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics: where a link is for given joint positions, and how it moves with them.

    chain = Chain(urdf, 'fr3_hand_tcp')
    pose = chain.pose(position)            # [4, 4], of the link in the base frame
    jacobian = chain.jacobian(position)    # [6, joints]

Positions are in the order of `chain.joint_names`, in rad or m, and may be many at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_deploy.core.urdf import MOVING_TYPES, Urdf, UrdfJoint

Array = NDArray[np.float64]


class KinematicsError(ValueError):
    """A link cannot be placed; one line that names the link or joint."""


@dataclass(frozen=True, eq=False)
class _Segment:
    """One joint of the chain: the constant transform to it, then its motion.

    `index` is the column of the joint that moves it, -1 where nothing does; a mimic joint is at
    multiplier * q + offset of that column.
    """

    origin: Array
    axis: Array
    slides: bool
    index: int
    multiplier: float
    offset: float


class Chain:
    """The joints between two links, base to tip."""

    def __init__(self, urdf: Urdf, tip: str, base: str = '') -> None:
        """Find the chain to the link `tip`; an empty `base` means the root link.

        Raises KinematicsError for an unknown link, a tip that is not below the base, a loop, and
        planar or floating joints.
        """
        joints = _path(urdf, tip, base)
        self.tip = tip
        self.base = joints[0].parent if joints else tip
        masters = [_master(urdf, joint) for joint in joints]
        self.joint_names = tuple(dict.fromkeys(name for name, _, _ in masters if name))
        """Names of the joints that move the tip, in order from the base; mimics left out."""
        self._segments = [
            _segment(joint, *master, self.joint_names)
            for joint, master in zip(joints, masters, strict=True)
        ]

    def pose(self, position: ArrayLike) -> Array:
        """Return the tip's pose in the base frame, float64 [..., 4, 4].

        position: [..., joints]. Raises KinematicsError for another number of joints.
        """
        q = self._checked(position)
        pose = np.broadcast_to(np.eye(4), (*q.shape[:-1], 4, 4))
        for segment in self._segments:
            pose = pose @ segment.origin
            if segment.index >= 0:
                pose = pose @ _motion(segment, q)
        return np.array(pose)

    def jacobian(self, position: ArrayLike) -> Array:
        """Return the geometric Jacobian of the tip's origin in the base frame [..., 6, joints].

        Three rows of linear velocity, then three of angular velocity, for a unit velocity of each
        joint (Siciliano et al., Robotics, 2009, section 3.1). Raises as `pose` does.
        """
        q = self._checked(position)
        lead = q.shape[:-1]
        pose = np.broadcast_to(np.eye(4), (*lead, 4, 4))
        passed = []
        for segment in self._segments:
            pose = pose @ segment.origin
            if segment.index >= 0:
                axis = pose[..., :3, :3] @ segment.axis
                passed.append((segment, axis, pose[..., :3, 3]))
                pose = pose @ _motion(segment, q)
        tip = pose[..., :3, 3]
        jacobian = np.zeros((*lead, 6, len(self.joint_names)))
        for segment, axis, origin in passed:
            column = jacobian[..., segment.index]
            if segment.slides:
                column[..., :3] += segment.multiplier * axis
            else:
                column[..., :3] += segment.multiplier * np.cross(axis, tip - origin)
                column[..., 3:] += segment.multiplier * axis
        return jacobian

    def _checked(self, position: ArrayLike) -> Array:
        q = np.asarray(position, dtype=np.float64)
        if q.ndim == 0 or q.shape[-1] != len(self.joint_names):
            raise KinematicsError(
                f'link {self.tip!r} is moved by {len(self.joint_names)} joints '
                f'({", ".join(self.joint_names)}), but positions have shape {q.shape}'
            )
        return q


def links(urdf: Urdf) -> tuple[str, ...]:
    """Return the names of all links that joints connect, the root first."""
    root = _root(urdf)
    return (root, *(j.child for j in urdf.joints.values() if j.child is not None))


def _root(urdf: Urdf) -> str:
    children: set[str] = set()
    for joint in urdf.joints.values():
        if not joint.parent or not joint.child:
            raise KinematicsError(f'joint {joint.name!r} names no parent or no child link')
        if joint.child in children:
            raise KinematicsError(f'link {joint.child!r} is the child of two joints')
        children.add(joint.child)
    parents = (joint.parent for joint in urdf.joints.values() if joint.parent)
    roots = list(dict.fromkeys(link for link in parents if link not in children))
    if len(roots) != 1:
        raise KinematicsError(f'robot description has {len(roots)} root links, not one: {roots}')
    return roots[0]


def _path(urdf: Urdf, tip: str, base: str) -> list[UrdfJoint]:
    known = links(urdf)
    base = base or known[0]
    for link in (tip, base):
        if link not in known:
            raise KinematicsError(f'robot description has no link {link!r}')
    above = {joint.child: joint for joint in urdf.joints.values()}
    path: list[UrdfJoint] = []
    link = tip
    while link != base:
        joint = above.get(link)
        if joint is None or len(path) > len(above):
            raise KinematicsError(f'link {tip!r} is not below link {base!r}')
        if joint.kind in ('floating', 'planar'):
            raise KinematicsError(f'joint {joint.name!r} is {joint.kind}, which has no position')
        path.append(joint)
        assert joint.parent is not None
        link = joint.parent
    return path[::-1]


def _master(urdf: Urdf, joint: UrdfJoint) -> tuple[str, float, float]:
    """Return the joint that moves this one, and the multiplier and offset from there to here.

    The name is empty for a joint that nothing moves.
    """
    multiplier, offset = 1.0, 0.0
    if joint.kind not in MOVING_TYPES:
        return '', multiplier, offset
    seen = [joint.name]
    while joint.mimics is not None:
        offset += multiplier * joint.mimic_offset
        multiplier *= joint.mimic_multiplier
        if joint.mimics in seen:
            raise KinematicsError(f'joints {", ".join(seen)} mimic each other')
        joint = urdf.joints[joint.mimics]
        seen.append(joint.name)
    if joint.kind not in MOVING_TYPES:
        raise KinematicsError(f'joint {seen[0]!r} mimics {joint.name!r}, which is {joint.kind}')
    return joint.name, multiplier, offset


def _segment(
    joint: UrdfJoint, master: str, multiplier: float, offset: float, names: Sequence[str]
) -> _Segment:
    origin = np.eye(4)
    origin[:3, :3] = rotation_from_rpy(joint.origin_rpy)
    origin[:3, 3] = joint.origin_xyz
    return _Segment(
        origin=origin,
        axis=np.array(joint.axis),
        slides=joint.kind == 'prismatic',
        index=names.index(master) if master else -1,
        multiplier=multiplier,
        offset=offset,
    )


def _motion(segment: _Segment, q: Array) -> Array:
    """Return the transform of a joint's own motion [..., 4, 4]."""
    value = segment.multiplier * q[..., segment.index] + segment.offset
    motion = np.zeros((*value.shape, 4, 4))
    motion[..., 3, 3] = 1.0
    if segment.slides:
        motion[..., :3, :3] = np.eye(3)
        motion[..., :3, 3] = value[..., None] * segment.axis
    else:
        motion[..., :3, :3] = _rotation_about(segment.axis, value)
    return motion


def _rotation_about(axis: Array, angle: Array) -> Array:
    """Return rotation matrices [..., 3, 3] about a unit axis (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array(((0.0, -z, y), (z, 0.0, -x), (-y, x, 0.0)))
    sine, versine = np.sin(angle)[..., None, None], (1.0 - np.cos(angle))[..., None, None]
    return np.asarray(np.eye(3) + sine * cross + versine * (cross @ cross))


def rotation_from_rpy(rpy: Sequence[float]) -> Array:
    """Return the rotation matrix [3, 3] of roll, pitch, yaw about the fixed x, y, z axes [rad]."""
    roll, pitch, yaw = (
        _rotation_about(axis, np.asarray(angle)) for axis, angle in zip(np.eye(3), rpy, strict=True)
    )
    return yaw @ pitch @ roll
