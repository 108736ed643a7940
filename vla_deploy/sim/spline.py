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
        self._coefficients = _coefficients(knots)  # [segments, 6, joints], lowest power first

    @property
    def start_ns(self) -> int:
        """Time of the first knot."""
        return int(self._knots.time_ns[0])

    @property
    def end_ns(self) -> int:
        """Time of the last knot."""
        return int(self._knots.time_ns[-1])

    def sample(self, time_ns: int) -> JointMotion:
        """Return the motion at a time; outside the knots it is rest at the nearest one."""
        times = self._knots.time_ns
        segment = int(np.searchsorted(times, time_ns, side='right')) - 1
        if segment < 0:
            return JointMotion.at_rest(self._knots.position[0])
        if segment >= len(times) - 1:
            return JointMotion.at_rest(self._knots.position[-1])
        t = (time_ns - int(times[segment])) * 1e-9
        c = self._coefficients[segment]
        return JointMotion(
            position=c[0] + t * (c[1] + t * (c[2] + t * (c[3] + t * (c[4] + t * c[5])))),
            velocity=c[1] + t * (2 * c[2] + t * (3 * c[3] + t * (4 * c[4] + t * 5 * c[5]))),
            acceleration=2 * c[2] + t * (6 * c[3] + t * (12 * c[4] + t * 20 * c[5])),
        )


def _coefficients(knots: Knots) -> Vector:
    """Solve each segment for the values at its ends; the classic Hermite conditions."""
    h = (np.diff(knots.time_ns) * 1e-9)[:, None]
    p0, p1 = knots.position[:-1], knots.position[1:]
    v0, v1 = knots.velocity[:-1], knots.velocity[1:]
    a0, a1 = knots.acceleration[:-1], knots.acceleration[1:]
    cubic = (knots.has_velocity[:-1] & knots.has_velocity[1:])[:, None]
    quintic = cubic & (knots.has_acceleration[:-1] & knots.has_acceleration[1:])[:, None]
    d = p1 - p0
    out = np.zeros((len(h), 6, knots.position.shape[1]))
    out[:, 0] = p0
    out[:, 1] = np.where(cubic, v0, d / h)
    hermite2 = (3 * d / h - 2 * v0 - v1) / h
    hermite3 = (v0 + v1 - 2 * d / h) / h**2
    quintic3 = (20 * d - (8 * v1 + 12 * v0) * h - (3 * a0 - a1) * h**2) / (2 * h**3)
    quintic4 = (-30 * d + (14 * v1 + 16 * v0) * h + (3 * a0 - 2 * a1) * h**2) / (2 * h**4)
    quintic5 = (12 * d - 6 * (v0 + v1) * h - (a0 - a1) * h**2) / (2 * h**5)
    out[:, 2] = np.where(quintic, a0 / 2, np.where(cubic, hermite2, 0.0))
    out[:, 3] = np.where(quintic, quintic3, np.where(cubic, hermite3, 0.0))
    out[:, 4] = np.where(quintic, quintic4, 0.0)
    out[:, 5] = np.where(quintic, quintic5, 0.0)
    return out
