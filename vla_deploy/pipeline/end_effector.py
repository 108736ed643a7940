# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Actions of an end effector as positions of joints, since that is what a guard can verify.

The first six elements of an action are a pose of one link, or a change of it: x, y, z in m, and a
rotation in rad. The elements after them are positions of other joints, as of a gripper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.inverse_kinematics import rotation_from_vector, solve
from vla_deploy.core.kinematics import Chain, rotation_from_rpy
from vla_deploy.core.urdf import Urdf
from vla_deploy.pipeline.observation import ObservationError

Array = NDArray[np.float64]

SEMANTICS = ('absolute', 'from_observation', 'from_previous')
ROTATIONS = ('rotation_vector', 'rpy')
POSE_DIMS = 6


class EndEffectorError(ObservationError):
    """A pose is out of reach; one line that names link and sample."""


@dataclass(frozen=True)
class EndEffectorRules:
    """How the six elements are meant, and what may be left of a pose."""

    semantics: str
    rotation: str
    max_residual_m: float
    max_residual_rad: float


class EndEffector:
    """Makes joint positions of the actions of one link."""

    def __init__(
        self, urdf: Urdf, link: str, others: Sequence[str], state_joints: Sequence[str],
        rules: EndEffectorRules,
    ) -> None:
        """others: joints of the elements after the pose. Raises KinematicsError for an unknown
        link, and ValueError for a joint that moves it and is not in the observed state."""
        self._chain, self._rules, self._link = Chain(urdf, link), rules, link
        names = self._chain.joint_names
        missing = [name for name in names if name not in state_joints]
        if missing:
            raise ValueError(f'{link!r} is moved by {missing[0]!r}, which is not observed')
        twice = [name for name in others if name in names]
        if twice:
            raise ValueError(f'{twice[0]!r} moves {link!r} and cannot be commanded beside its pose')
        self.joint_names = (*names, *others)
        self._columns = [list(state_joints).index(name) for name in names]
        joints = [urdf.joints[name] for name in names]
        self._lower = np.array([-math.inf if j.lower is None else j.lower for j in joints])
        self._upper = np.array([math.inf if j.upper is None else j.upper for j in joints])

    @property
    def action_dim(self) -> int:
        """Number of elements of an action."""
        return POSE_DIMS + len(self.joint_names) - len(self._columns)

    def to_joints(self, actions: Array, state: Array) -> Array:
        """Positions [steps, joint_names] for actions [steps, action_dim] after a state [dim].

        Each sample is solved from the one before. Raises EndEffectorError for a pose of which more
        is left than the rules allow. Actions that are not finite become positions that are not.
        """
        if not np.isfinite(actions).all():
            return np.full((len(actions), len(self.joint_names)), np.nan)
        q = np.asarray(state, np.float64)[self._columns]
        pose = self._chain.pose(q)
        positions = np.empty((len(actions), len(self.joint_names)))
        for i, action in enumerate(actions):
            wanted = self._pose(pose, action[:POSE_DIMS])
            if self._rules.semantics == 'from_previous':
                pose = wanted
            found = solve(self._chain, wanted, q, self._lower, self._upper)
            if not (found.residual_m <= self._rules.max_residual_m
                    and found.residual_rad <= self._rules.max_residual_rad):
                raise EndEffectorError(
                    f'end effector: sample {i} asks for a pose that {self._link} misses by '
                    f'{found.residual_m:.4g} m and {found.residual_rad:.4g} rad'
                )
            q = found.position
            positions[i, :len(q)], positions[i, len(q):] = q, action[POSE_DIMS:]
        return positions

    def _pose(self, reference: Array, action: Array) -> Array:
        """The pose [4, 4] that an action asks for; changes are along and about the base's axes."""
        turn = rotation_from_rpy(action[3:].tolist()) if self._rules.rotation == 'rpy' else (
            rotation_from_vector(action[3:]))
        pose = np.eye(4)
        pose[:3, 3], pose[:3, :3] = action[:3], turn
        if self._rules.semantics != 'absolute':
            pose[:3, 3] += reference[:3, 3]
            pose[:3, :3] = turn @ reference[:3, :3]
        return pose
