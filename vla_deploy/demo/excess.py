# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""An independent look at what was commanded and measured: did anything exceed a limit?

This does not use the guard's own arithmetic: each cubic is written out as its Bernstein polynomial.
Second differences of its control points are the accelerations at its ends, between which it is
linear. Positions and velocities are looked at where they are largest, and at evenly spaced places
for the velocity limits that depend on position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.core.limits import JointLimits, VelocityEnvelope
from vla_deploy.ros.conversions import JointMap, duration_s

Array = NDArray[np.float64]
_TOLERANCE = 1e-6  # relative; a limit may be met exactly, and time_from_start is whole ns
_EVEN = np.linspace(0.05, 0.95, 19)
_NO_CURVE = VelocityEnvelope(1.0, 0.0, -1e18, 1e18)


@dataclass
class Excess:
    """Largest use of each limit so far, as a part of it; above 1 is an excess.

    velocity counts the velocity limits that depend on position, too: 1 - (allowed - speed) / limit.
    """

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
        # A joint whose velocity limit does not depend on position gets a curve far above it.
        curves = [joint.envelope or _NO_CURVE for joint in limits.joints]
        self._k, self._c = np.array([(curve.k, curve.c) for curve in curves]).T
        self._ends = np.array([(curve.q_lower, curve.q_upper) for curve in curves]).T
        self.excess = Excess()

    def add_command(self, msg: JointTrajectory) -> None:
        """Take a trajectory as it was published."""
        order = [msg.joint_names.index(name) for name in self._limits.names]
        times = np.array([duration_s(p.time_from_start) for p in msg.points])
        q = np.array([p.positions for p in msg.points])[:, order]
        v = np.array([p.velocities for p in msg.points])[:, order]
        self._take(q, v)
        if len(times) < 2:
            return
        h = np.diff(times)[:, None]
        first = q[:-1] + h * v[:-1] / 3
        second = q[1:] - h * v[1:] / 3
        ends = np.stack([q[:-1] - 2 * first + second, first - 2 * second + q[1:]]) * 6 / h**2
        # float64 positions of a few rad carry 1e-15; a short segment divides that by h squared.
        rounding = 6 * 4 * 1e-15 / h**2
        use = np.maximum(0.0, np.abs(ends) - rounding) / self._limits.acceleration
        self.excess.acceleration = _larger(self.excess.acceleration, use)
        steps = np.stack([first - q[:-1], second - first, q[1:] - second])
        s = _places(steps)
        r = 1.0 - s
        self._take(
            r**3 * q[:-1] + 3 * r**2 * s * first + 3 * r * s**2 * second + s**3 * q[1:],
            3 / h * (r**2 * steps[0] + 2 * r * s * steps[1] + s**2 * steps[2]),
        )

    def _take(self, position: Array, velocity: Array) -> None:
        """Judge positions and velocities [..., joints] that belong together."""
        room = np.where(velocity > 0.0, self._ends[1] - position, position - self._ends[0])
        curve = np.sqrt(self._k * np.maximum(room, 0.0)) - self._c
        limit = self._limits.velocity
        use = 1.0 - (np.clip(curve, 0.0, limit) - np.abs(velocity)) / limit
        e = self.excess
        e.velocity = _larger(e.velocity, np.where(velocity == 0.0, 0.0, use))
        e.position = _larger(e.position, self._position_use(position))

    def add_measurement(self, msg: JointState) -> None:
        """Take a joint state as it was measured."""
        use = self._position_use(self._map.positions(msg))
        self.excess.measured_position = _larger(self.excess.measured_position, use)

    def _position_use(self, position: Array) -> Array:
        return np.asarray(np.abs(position - self._centre) / self._half)


def _larger(so_far: float, use: Array) -> float:
    """The largest of all; NaN where one is NaN, which Python's max would leave out."""
    return float(np.maximum(so_far, np.max(use)))


def _places(steps: Array) -> Array:
    """Return parts [places, segments, joints] of each segment at which to look at it.

    steps: differences of the control points [3, segments, joints], a third of the velocity's own.
    Evenly spaced ones, and those where the velocity is largest or zero.
    """
    begin, middle, end = steps
    bend, slope = begin - 2 * middle + end, middle - begin
    with np.errstate(all='ignore'):
        # roots of bend s^2 + 2 slope s + begin, in the form that does not cancel
        w = -(slope + np.copysign(np.sqrt(slope * slope - bend * begin), slope))
        turns = np.stack([-slope / bend, w / bend, begin / w])
    even = np.broadcast_to(_EVEN[:, None, None], (len(_EVEN), *begin.shape))
    return np.concatenate([even, np.clip(np.nan_to_num(turns, posinf=0.0, neginf=0.0), 0.0, 1.0)])
