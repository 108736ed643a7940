# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""One step of each joint toward a target that may move, always able to stop inside its bounds.

Acceleration is constant within a step: q' = q + (v + v') dt / 2. With the room d toward a bound,
the new velocity v' keeps v'^2 / (2a) + (v + v') dt / 2 <= d, so that full braking from the next
state stays inside. Where no v' >= 0 does that, the joint brakes at once and rests inside the step.
A velocity limit that depends on position (core/envelope.py) bounds v' in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.envelope import SpeedCurve

APPROACH = 0.5
"""Part of the acceleration used to catch up with a target; the rest is left to its own motion."""
GAIN = 0.4
"""Part of a small error closed in one step; low enough not to oscillate."""


class StepLimiter:
    """One step of dt seconds for all joints."""

    def __init__(self, bounds: Bounds, dt: float) -> None:
        curves = bounds.envelope.curves if bounds.envelope else (None,) * len(bounds.lower)
        self._steps = [JointStep(*figures, dt).step for figures in zip(
            bounds.lower.tolist(), bounds.upper.tolist(), bounds.velocity.tolist(),
            bounds.acceleration.tolist(), curves, strict=True)]

    def step(
        self, position: Iterable[float], velocity: Iterable[float],
        target_position: Iterable[float], target_velocity: Iterable[float],
    ) -> tuple[list[float], list[bool]]:
        """Velocity [joints] after dt, and which joints must brake to rest at once instead.

        target_position, target_velocity [joints]: where the target will be after dt; a target
        velocity of exactly 0 is a target at rest and is not overshot. Where a joint must brake,
        the velocity returned is its present one.
        """
        # Plain floats: on a handful of joints they are several times faster than arrays.
        after, brakes = [], []
        for step, q, v, target, drift in zip(
            self._steps, position, velocity, target_position, target_velocity, strict=True
        ):
            v_after, must_brake = step(q, v, target, drift)
            after.append(v_after)
            brakes.append(must_brake)
        return after, brakes


class JointStep:
    """One joint's step of dt seconds within its bounds; finite numbers only."""

    def __init__(
        self, lower: float, upper: float, v_max: float, a_max: float, curve: SpeedCurve | None,
        dt: float,
    ) -> None:
        self._lower, self._upper, self._v_max, self._curve = lower, upper, v_max, curve
        self._dt, self._half_dt = dt, 0.5 * dt
        self._change, self._twice_a = a_max * dt, 2.0 * a_max
        self._half = 0.5 * a_max * dt
        self._half_square = self._half * self._half
        # Of the approach: linear near the target, a square root law (braking) far off.
        usable = APPROACH * a_max
        self._gain, self._twice_usable = GAIN / dt, 2.0 * usable
        self._linear = usable / (self._gain * self._gain)
        # Positions beyond which the curve may bind, toward either end.
        self._near_upper, self._near_lower = math.inf, -math.inf
        if curve is not None:
            room = curve.clear_room(v_max, dt)
            self._near_upper, self._near_lower = curve.q_upper - room, curve.q_lower + room

    def step(self, q: float, v: float, target: float, drift: float) -> tuple[float, bool]:
        """Return the velocity after dt and whether the joint must brake at once."""
        # Comparisons in place of min and max throughout: a call costs more than all the rest.
        lower, upper, v_max, half_dt = self._lower, self._upper, self._v_max, self._half_dt
        if not lower <= target <= upper:
            target, drift = min(max(target, lower), upper), 0.0
        if not -v_max <= drift <= v_max:
            drift = min(max(drift, -v_max), v_max)
        # Relative velocity that closes the error; both laws meet with equal value and slope.
        error, linear = target - (q + half_dt * (v + drift)), self._linear
        if -linear <= error <= linear:
            after = drift + self._gain * error
        else:
            after = drift + math.copysign(
                math.sqrt(self._twice_usable * (abs(error) - 0.5 * linear)), error)

        above, below = upper - q, q - lower
        if drift == 0.0:
            ahead = target - q
            if 0.0 <= ahead < above:
                above = ahead
            if 0.0 <= -ahead < below:
                below = -ahead
        above, below = max(above, 0.0), max(below, 0.0)
        way = half_dt * v
        if (v > 0.0 and way > above) or (v < 0.0 and -way > below):
            return v, True
        # A bound toward one side only matters where the joint moves, or would move, that way.
        if v > 0.0 or after > 0.0:
            highest = self._room_bound(above - way)
            if q > self._near_upper:
                assert self._curve is not None
                bound = self._curve.step_bound(self._curve.q_upper - q, v, v_max, self._dt)
                if bound < 0.0:
                    if v > 0.0:
                        return v, True
                    bound = 0.0
                if bound < highest:
                    highest = bound
            if after > highest:
                after = highest
        if v < 0.0 or after < 0.0:
            lowest = -self._room_bound(below + way)
            if q < self._near_lower:
                assert self._curve is not None
                bound = self._curve.step_bound(q - self._curve.q_lower, -v, v_max, self._dt)
                if bound < 0.0:
                    if v < 0.0:
                        return v, True
                    bound = 0.0
                if -bound > lowest:
                    lowest = -bound
            if after < lowest:
                after = lowest
        # Last, so that a start which is not viable brakes as hard as it may and no harder.
        change = self._change
        if after < v - change:
            after = v - change
        if after > v + change:
            after = v + change
        return after, False

    def _room_bound(self, spare: float) -> float:
        """Largest v' toward a bound; spare: the room less v dt / 2.

        Positive root of v'^2 / (2a) + (v + v') dt / 2 = room, and at most the speed limit.
        """
        if spare <= 0.0:
            return 0.0
        root = math.sqrt(self._half_square + self._twice_a * spare) - self._half
        return root if root < self._v_max else self._v_max
