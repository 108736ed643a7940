# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""An independent look at what was commanded and measured: did anything exceed a limit?

This does not use the guard's own arithmetic: each cubic is written out as its Bernstein polynomial,
whose control points bound it from both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.core.limits import JointLimits
from vla_deploy.ros.conversions import JointMap, duration_s

Array = NDArray[np.float64]
_TOLERANCE = 1e-6  # relative; a limit may be met exactly, and time_from_start is whole ns


@dataclass
class Excess:
    """Largest use of each limit so far, as a part of it; above 1 is an excess."""

    position: float = 0.0
    velocity: float = 0.0
    acceleration: float = 0.0
    measured_position: float = 0.0

    @property
    def any(self) -> bool:
        """Tell whether a limit was exceeded."""
        used = (self.position, self.velocity, self.acceleration, self.measured_position)
        return max(used) > 1.0 + _TOLERANCE or not all(np.isfinite(used))


class ExcessCheck:
    """Takes every command and every measurement of a run."""

    def __init__(self, limits: JointLimits) -> None:
        self._limits = limits
        self._map = JointMap(limits.names)
        # A joint without bounds has an infinite range around zero, and uses nothing of it.
        lower, upper = limits.lower, limits.upper
        self._half = np.where(limits.has_position, (upper - lower) / 2, np.inf)
        self._centre = np.where(limits.has_position, upper - self._half, 0.0)
        self.excess = Excess()

    def add_command(self, msg: JointTrajectory) -> None:
        """Take a trajectory as it was published."""
        order = [msg.joint_names.index(name) for name in self._limits.names]
        times = np.array([duration_s(p.time_from_start) for p in msg.points])
        q = np.array([p.positions for p in msg.points])[:, order]
        v = np.array([p.velocities for p in msg.points])[:, order]
        e = self.excess
        e.position = max(e.position, self._position_use(q))
        e.velocity = max(e.velocity, float(np.max(np.abs(v) / self._limits.velocity)))
        if len(times) < 2:
            return
        h = np.diff(times)[:, None]
        # Second differences of the control points are the accelerations at the ends of a segment,
        # and the acceleration of a cubic is linear between them.
        first = q[:-1] + h * v[:-1] / 3
        second = q[1:] - h * v[1:] / 3
        ends = np.stack([q[:-1] - 2 * first + second, first - 2 * second + q[1:]]) * 6 / h**2
        # float64 positions of a few rad carry 1e-15; a short segment divides that by h squared.
        rounding = 6 * 4 * 1e-15 / h**2
        use = np.maximum(0.0, np.abs(ends) - rounding) / self._limits.acceleration
        e.acceleration = max(e.acceleration, float(np.max(use)))
        # Positions and velocities between the knots, sampled.
        for s in np.linspace(0.05, 0.95, 19):
            point, speed = _bernstein(q, v, h, first, second, s)
            e.position = max(e.position, self._position_use(point))
            e.velocity = max(e.velocity, float(np.max(np.abs(speed) / self._limits.velocity)))

    def add_measurement(self, msg: JointState) -> None:
        """Take a joint state as it was measured."""
        use = self._position_use(self._map.positions(msg))
        self.excess.measured_position = max(self.excess.measured_position, use)

    def _position_use(self, position: Array) -> float:
        return float(np.max(np.abs(position - self._centre) / self._half))


def _bernstein(
    q: Array, v: Array, h: Array, first: Array, second: Array, s: float
) -> tuple[Array, Array]:
    """Return position and velocity at the part s of each segment, [segments, joints]."""
    r = 1.0 - s
    point = r**3 * q[:-1] + 3 * r**2 * s * first + 3 * r * s**2 * second + s**3 * q[1:]
    speed = r**2 * (first - q[:-1]) + 2 * r * s * (second - first) + s**2 * (q[1:] - second)
    return point, 3 * speed / h
