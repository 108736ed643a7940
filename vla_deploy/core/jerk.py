# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Motion with bounded jerk, by Ruckig (Berscheid & Kröger, RSS 2021): stops, and ways to a target.

Ruckig's phases of constant jerk begin at any time, but knots lie on a grid. So a phase's boundary
gets the knots of the grid before and after it. Between them jerk is a mean of both phases' (of the
cubic Hermite through exact states: with positive weights, so never above the limit); acceleration
may exceed that of Ruckig by 4/27 of jerk times the grid, or two thirds where jerk has no limit.
That much is taken off the limit that Ruckig is given.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import GRID_NS, GRID_S, ROUNDING, Bounds
from vla_deploy.core.limits import JointLimits, LimitsError
from vla_deploy.core.trajectory import NS_TO_S, Trajectory, hermite_coefficients

Array = NDArray[np.float64]

ON_GRID = 1e-6
"""Part of a grid step by which rounding may put a boundary off the grid."""


class JerkMotion:
    """Makes motion within velocity, acceleration and jerk limits, joints in the order of these."""

    def __init__(self, bounds: Bounds, jerk: Array) -> None:
        """jerk [joints], infinite for joints without a limit. Raises LimitsError without Ruckig."""
        try:
            import ruckig
        except ImportError:
            raise LimitsError('jerk limits are set, but ruckig is not installed: pip install '
                              'ruckig, or leave jerk out of the limits') from None
        self._ruckig: Any = ruckig
        lost = np.minimum(4.0 / 27.0 * jerk * GRID_S, 0.4 * bounds.acceleration)
        self.acceleration = bounds.acceleration - lost
        """What is left of the limit for Ruckig, [joints]."""
        self._velocity = bounds.velocity - np.minimum(lost * GRID_S, 0.5 * bounds.velocity)
        self.jerk = jerk * (1.0 - ROUNDING)
        """The same, a hair below the limit as the others are."""

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of(limits: JointLimits, bounds: Bounds) -> JerkMotion | None:
        """What makes motion within the limits' jerk, or None if no joint has such a limit."""
        return None if limits.jerk is None else JerkMotion(bounds, limits.jerk)

    def stop(self, t_ns: int, position: Array, velocity: Array, acceleration: Array) -> Trajectory:
        """The shortest way to rest of every joint, from a state [joints] at t_ns."""
        given = self._input(position, velocity, acceleration)
        given.control_interface = self._ruckig.ControlInterface.Velocity
        given.synchronization = self._ruckig.Synchronization.No
        given.target_velocity = [0.0] * len(position)
        return self._knots(t_ns, given, position, velocity)

    def reach(
        self, t_ns: int, position: Array, velocity: Array, acceleration: Array, duration_s: float,
        target: tuple[Array, Array, Array], on_time: bool = False,
    ) -> Trajectory | None:
        """The way to a target state (position, velocity, acceleration), all joints together.

        It takes duration_s, or longer if the limits ask for it. None where there is none: the
        target itself is beyond what Ruckig is given of the limits, or Ruckig fails (rarely, by
        rounding, where a joint already accelerates as much as it may).

        on_time: it ends at just that time, and not on the grid. Then the last two of its knots may
        be nearly two steps of the grid apart, and where it ends differs from Ruckig's own motion
        by what Ruckig rounds: hold acceleration and jerk against the limits.
        """
        if (np.abs(target[1]) > self._velocity).any() or (
            np.abs(target[2]) > self.acceleration).any():
            return None
        given = self._input(position, velocity, acceleration)
        given.synchronization = self._ruckig.Synchronization.Time
        given.minimum_duration = duration_s
        given.target_position, given.target_velocity, given.target_acceleration = (
            part.tolist() for part in target)
        try:
            return self._knots(t_ns, given, position, velocity, on_time)
        except self._ruckig.RuckigError:
            return None

    def _input(self, position: Array, velocity: Array, acceleration: Array) -> Any:
        given = self._ruckig.InputParameter(len(position))
        given.current_position, given.current_velocity = position.tolist(), velocity.tolist()
        given.current_acceleration = acceleration.tolist()
        given.max_velocity, given.max_acceleration = (
            self._velocity.tolist(), self.acceleration.tolist())
        given.max_jerk = self.jerk.tolist()
        return given

    def _knots(
        self, t_ns: int, given: Any, position: Array, velocity: Array,
        on_time: bool = False,
    ) -> Trajectory:
        """What Ruckig makes of an input, as knots on the grid from t_ns.

        on_time: the last knot is where the motion ends, not the next one of the grid.
        """
        # Made anew: its bindings complain about objects that live until the process ends.
        motion = self._ruckig.Trajectory(len(position))
        self._ruckig.Ruckig(len(position)).calculate(given, motion)
        end_ns = GRID_NS * max(1, math.ceil(motion.duration / GRID_S - ON_GRID))
        if on_time:
            end_ns = max(GRID_NS, math.ceil(motion.duration * 1e9 - ON_GRID))
        steps = {0}
        for profile in motion.profiles[0]:
            time = 0.0
            for phase in (*profile.brake.t, *profile.t):
                if phase:
                    time += phase
                    before = int(time / GRID_S + ON_GRID)
                    steps.add(before)
                    if time / GRID_S > before + ON_GRID:
                        steps.add(before + 1)
        times = [time for step in sorted(steps) if (time := step * GRID_NS) <= end_ns - GRID_NS]
        times.append(end_ns)
        states = np.array([motion.at_time(min(time * NS_TO_S, motion.duration))[:2]
                           for time in times])
        states[0] = position, velocity
        if not any(given.target_velocity):
            states[-1, 1] = 0.0
        return Trajectory([t_ns + time for time in times], states.swapaxes(0, 1).copy())


def acceleration_before(motion: Trajectory, t_ns: int) -> Array:
    """Acceleration [joints] of a motion just before t_ns; zero outside of it."""
    ns = motion.ns
    i = bisect_left(ns, t_ns) - 1
    if not 0 <= i < len(ns) - 1:
        return np.zeros(motion.states.shape[-1])
    (p0, p1), (v0, v1) = motion.states[:, i:i + 2]
    a0, jerk = hermite_coefficients(p0, p1, v0, v1, (ns[i + 1] - ns[i]) * NS_TO_S)
    return np.asarray(a0 + jerk * ((t_ns - ns[i]) * NS_TO_S))
