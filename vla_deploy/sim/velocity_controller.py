# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A controller that is commanded in velocity, as a flight controller's velocity setpoints are.

A command holds until the next one, but not beyond a time limit: then the robot stands still.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim.controller import TrajectoryRefusedError
from vla_deploy.sim.spline import JointMotion

Vector = NDArray[np.float64]

_NS = 1_000_000_000


class VelocityController:
    """Integrates commanded velocities; all vectors in the order of `joint_names`."""

    def __init__(self, joint_names: Sequence[str], position: Vector, timeout_s: float) -> None:
        """Start by holding `position`."""
        self.joint_names = tuple(joint_names)
        self._timeout_ns = round(timeout_s * _NS)
        self.hold(position)

    def hold(self, position: Vector) -> None:
        """Forget the command and hold a position."""
        self._position = np.array(position, dtype=np.float64)
        self._velocity = np.zeros_like(self._position)
        self._until_ns = 0
        self._sampled_ns: int | None = None

    def accept(self, velocity: Sequence[float], now_ns: int) -> None:
        """Follow these velocities from now on; raises TrajectoryRefusedError, keeps the old."""
        if len(velocity) != len(self.joint_names):
            raise TrajectoryRefusedError(
                f'{len(velocity)} velocities for {len(self.joint_names)} joints'
            )
        values = np.array(velocity, dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise TrajectoryRefusedError(f'velocity of {self.joint_names[bad[0]]} is not finite')
        self._velocity = values
        self._until_ns = now_ns + self._timeout_ns

    def sample(self, now_ns: int) -> JointMotion:
        """Return what is commanded at a time; call it with times that do not decrease."""
        moving = now_ns <= self._until_ns
        velocity = self._velocity if moving else np.zeros_like(self._velocity)
        if self._sampled_ns is not None:
            self._position = self._position + velocity * max(0, now_ns - self._sampled_ns) / _NS
        self._sampled_ns = now_ns
        return JointMotion(self._position, velocity, np.zeros_like(velocity))
