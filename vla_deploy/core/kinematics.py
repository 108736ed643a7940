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
    """A moving joint and what is fixed before it: constant + sine S + versine V, or + q S.

    `column` is that of the joint that moves it: it is at multiplier * q + offset.
    """

    constant: Array
    sine: Array
    versine: Array
    axis: Array
    slides: bool
    column: int
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
        fixed = np.eye(4)
        segments = []
        for joint, (master, multiplier, offset) in zip(joints, masters, strict=True):
            fixed = fixed @ _origin(joint)
            if master:
                column = self.joint_names.index(master)
                segments.append(_segment(joint, fixed, column, multiplier, offset))
                fixed = np.eye(4)
        self._segments = tuple(segments)
        self._end = fixed
        self._slides = np.array([s.slides for s in segments], dtype=bool)
        self._columns = np.array([s.column for s in segments], dtype=np.intp)
        self._multiplier = np.array([s.multiplier for s in segments])
        self._offset = np.array([s.offset for s in segments])
        parts = ('constant', 'sine', 'versine')
        self._constant, self._sine, self._versine = (
            np.array([getattr(s, part) for s in segments]).reshape(-1, 4, 4) for part in parts
        )
        # What a unit velocity of each joint gives each segment, [segments, joints].
        self._share = np.zeros((len(segments), len(self.joint_names)))
        self._share[np.arange(len(segments)), self._columns] = self._multiplier

    def pose(self, position: ArrayLike) -> Array:
        """Return the tip's pose in the base frame, float64 [..., 4, 4].

        position: [..., joints]. Raises KinematicsError for another number of joints.
        """
        local = self._local(self._checked(position))
        pose = np.broadcast_to(np.eye(4), (*local.shape[:-3], 4, 4))
        for index in range(len(self._segments)):
            pose = pose @ local[..., index, :, :]
        return np.asarray(pose @ self._end)

    def jacobian(self, position: ArrayLike) -> Array:
        """Return the geometric Jacobian of the tip's origin in the base frame [..., 6, joints].

        Three rows of linear velocity, then three of angular velocity, for a unit velocity of each
        joint (Siciliano et al., Robotics, 2009, section 3.1). Raises as `pose` does.
        """
        local = self._local(self._checked(position))
        lead = local.shape[:-3]
        pose = np.broadcast_to(np.eye(4), (*lead, 4, 4))
        axes, origins = np.empty((2, *lead, len(self._segments), 3))
        for index, segment in enumerate(self._segments):
            # A joint's own motion leaves its axis, and a turning one its origin, where they were.
            pose = pose @ local[..., index, :, :]
            axes[..., index, :] = pose[..., :3, :3] @ segment.axis
            origins[..., index, :] = pose[..., :3, 3]
        tip = (pose @ self._end)[..., :3, 3]
        slides = self._slides[:, None]
        linear = np.where(slides, axes, _cross(axes, tip[..., None, :] - origins))
        angular = np.where(slides, 0.0, axes)
        rows = np.concatenate((linear, angular), axis=-1)
        return np.asarray(np.swapaxes(rows, -1, -2) @ self._share)

    def _local(self, q: Array) -> Array:
        """Return the transform over each moving joint [..., moving joints, 4, 4]."""
        value = self._multiplier * q[..., self._columns] + self._offset
        first = np.where(self._slides, value, np.sin(value))[..., None, None]
        second = (1.0 - np.cos(value))[..., None, None]
        return np.asarray(self._constant + first * self._sine + second * self._versine)

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


def _origin(joint: UrdfJoint) -> Array:
    origin = np.eye(4)
    origin[:3, :3] = rotation_from_rpy(joint.origin_rpy)
    origin[:3, 3] = joint.origin_xyz
    return origin


def _segment(
    joint: UrdfJoint, before: Array, column: int, multiplier: float, offset: float
) -> _Segment:
    """Return the segment of a moving joint; turning follows Rodrigues' formula."""
    axis = np.array(joint.axis)
    slides = joint.kind == 'prismatic'
    sine, versine = np.zeros((4, 4)), np.zeros((4, 4))
    if slides:
        sine[:3, 3] = axis
    else:
        sine[:3, :3] = _cross_matrix(axis)
        versine[:3, :3] = _cross_matrix(axis) @ _cross_matrix(axis)
    return _Segment(
        before, before @ sine, before @ versine, axis, slides, column, multiplier, offset
    )


def _cross(a: Array, b: Array) -> Array:
    """Return the cross product [..., 3]; numpy's own takes ten times as long for a few."""
    return np.stack(
        (
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ),
        axis=-1,
    )


def _cross_matrix(axis: Array) -> Array:
    x, y, z = axis
    return np.array(((0.0, -z, y), (z, 0.0, -x), (-y, x, 0.0)))


def rotation_from_rpy(rpy: Sequence[float]) -> Array:
    """Return the rotation matrix [3, 3] of roll, pitch, yaw about the fixed x, y, z axes [rad]."""
    roll, pitch, yaw = (
        np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
        for cross, angle in zip(map(_cross_matrix, np.eye(3)), rpy, strict=True)
    )
    return np.asarray(yaw @ pitch @ roll)
