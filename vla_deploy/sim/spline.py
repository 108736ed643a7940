# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Piecewise polynomials between trajectory points, as joint_trajectory_controller computes them.

A segment is linear where either end lacks velocities, cubic where both ends have them, quintic
where both have accelerations too. The coefficients follow from the values at both ends.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class JointMotion:
    """Position, velocity and acceleration of all joints at one moment, each float64 [joints]."""

    position: Vector
    velocity: Vector
    acceleration: Vector

    @staticmethod
    def at_rest(position: Vector) -> JointMotion:
        """Return rest at a position."""
        zero = np.zeros_like(position)
        return JointMotion(np.array(position, dtype=np.float64), zero, zero)


@dataclasses.dataclass(frozen=True)
class Knots:
    """Points in time; a row of `velocity` or `acceleration` counts only where its flag is set.

    `time_ns` int64 [points]; the arrays float64 [points, joints]; the flags bool [points].
    """

    time_ns: NDArray[np.int64]
    position: Vector
    velocity: Vector
    acceleration: Vector
    has_velocity: NDArray[np.bool_]
    has_acceleration: NDArray[np.bool_]


class Spline:
    """Polynomials through knots; before the first and after the last it stays where they are."""

    def __init__(self, knots: Knots) -> None:
        self._knots = knots
        # Most trajectories are replaced within their first segments, so each is solved when used.
        self._segment = -1
        self._coefficients = np.zeros((6, knots.position.shape[1]))

    @property
    def start_ns(self) -> int:
        """Time of the first knot."""
        return int(self._knots.time_ns[0])

    def sample(self, time_ns: int) -> JointMotion:
        """Return the motion at a time; outside the knots it is rest at the nearest one."""
        times = self._knots.time_ns
        segment = int(times.searchsorted(time_ns, side='right')) - 1
        if segment < 0:
            return JointMotion.at_rest(self._knots.position[0])
        if segment >= len(times) - 1:
            return JointMotion.at_rest(self._knots.position[-1])
        if segment != self._segment:
            self._coefficients = _coefficients(self._knots, segment)
            self._segment = segment
        motion = _powers((time_ns - int(times[segment])) * 1e-9) @ self._coefficients
        return JointMotion(motion[0], motion[1], motion[2])


def _powers(t: float) -> Vector:
    """Return [3, 6]: what position, velocity and acceleration take of each coefficient."""
    t2 = t * t
    t3, t4 = t2 * t, t2 * t2
    return np.array(
        [
            [1.0, t, t2, t3, t4, t4 * t],
            [0.0, 1.0, 2 * t, 3 * t2, 4 * t3, 5 * t4],
            [0.0, 0.0, 2.0, 6 * t, 12 * t2, 20 * t3],
        ]
    )


def _coefficients(knots: Knots, segment: int) -> Vector:
    """Return [6, joints], lowest power first, from the values at both ends (Hermite conditions)."""
    first, last = segment, segment + 1
    h = int(knots.time_ns[last] - knots.time_ns[first]) * 1e-9
    p0, v0, a0 = knots.position[first], knots.velocity[first], knots.acceleration[first]
    v1, a1 = knots.velocity[last], knots.acceleration[last]
    d = knots.position[last] - p0
    out = np.zeros((6, len(p0)))
    out[0] = p0
    if not (knots.has_velocity[first] and knots.has_velocity[last]):
        out[1] = d / h
        return out
    out[1] = v0
    if not (knots.has_acceleration[first] and knots.has_acceleration[last]):
        out[2] = (3 * d / h - 2 * v0 - v1) / h
        out[3] = (v0 + v1 - 2 * d / h) / h**2
        return out
    out[2] = a0 / 2
    out[3] = (20 * d - (8 * v1 + 12 * v0) * h - (3 * a0 - a1) * h**2) / (2 * h**3)
    out[4] = (-30 * d + (14 * v1 + 16 * v0) * h + (3 * a0 - 2 * a1) * h**2) / (2 * h**4)
    out[5] = (12 * d - 6 * (v0 + v1) * h - (a0 - a1) * h**2) / (2 * h**5)
    return out
