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

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.envelope import SpeedCurve

Array = NDArray[np.float64]

APPROACH = 0.5
"""Part of the acceleration used to catch up with a target; the rest is left to its own motion."""
GAIN = 0.4
"""Part of a small error closed in one step; low enough not to oscillate."""


class StepLimiter:
    """One step of dt seconds for all joints."""

    def __init__(self, bounds: Bounds, dt: float) -> None:
        self._dt = dt
        self._bounds = list(zip(
            bounds.lower.tolist(), bounds.upper.tolist(), bounds.velocity.tolist(),
            bounds.acceleration.tolist(),
            bounds.envelope.curves if bounds.envelope else (None,) * len(bounds.lower),
            strict=True,
        ))

    def step(
        self, position: Array, velocity: Array, target_position: Array, target_velocity: Array
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Velocity [joints] after dt, and which joints must brake to rest at once instead.

        target_position, target_velocity [joints]: where the target will be after dt; a target
        velocity of exactly 0 is a target at rest and is not overshot. Where a joint must brake,
        the velocity returned is its present one.
        """
        # Plain floats: on a handful of joints they are several times faster than arrays.
        joints = zip(self._bounds, position.tolist(), velocity.tolist(), target_position.tolist(),
                     target_velocity.tolist(), strict=True)
        steps = [limit_joint(*bounds, q, v, target, drift, self._dt)
                 for bounds, q, v, target, drift in joints]
        return np.array([after for after, _ in steps]), np.array([brakes for _, brakes in steps])


def limit_joint(
    lower: float,
    upper: float,
    v_max: float,
    a_max: float,
    curve: SpeedCurve | None,
    q: float,
    v: float,
    target: float,
    drift: float,
    dt: float,
) -> tuple[float, bool]:
    """One joint's velocity after dt and whether it must brake at once; finite numbers only."""
    if not lower <= target <= upper:
        target, drift = min(max(target, lower), upper), 0.0
    drift = min(max(drift, -v_max), v_max)
    desired = drift + approach_speed(target - (q + 0.5 * dt * (v + drift)), a_max, dt)

    above, below = max(upper - q, 0.0), max(q - lower, 0.0)
    if drift == 0.0:
        ahead = target - q
        if ahead >= 0.0:
            above = min(above, ahead)
        if ahead <= 0.0:
            below = min(below, -ahead)
    way = 0.5 * dt * v
    if (v > 0.0 and way > above) or (v < 0.0 and -way > below):
        return v, True
    highest = min(room_bound(above - way, a_max, dt), v_max)
    lowest = -min(room_bound(below + way, a_max, dt), v_max)
    if curve is not None:
        upward = curve.step_bound(curve.q_upper - q, v, v_max, dt)
        downward = curve.step_bound(q - curve.q_lower, -v, v_max, dt)
        if (v > 0.0 and upward < 0.0) or (v < 0.0 and downward < 0.0):
            return v, True
        highest, lowest = min(highest, max(upward, 0.0)), max(lowest, -max(downward, 0.0))
    after = max(min(desired, highest), lowest)
    # Last, so that a start which is not viable brakes as hard as it may and no harder.
    return min(max(after, v - a_max * dt), v + a_max * dt), False


def room_bound(spare: float, a_max: float, dt: float) -> float:
    """Largest v' toward a bound; spare: the room less v dt / 2.

    Positive root of v'^2 / (2a) + (v + v') dt / 2 = room.
    """
    half = 0.5 * a_max * dt
    return math.sqrt(half * half + 2.0 * a_max * max(spare, 0.0)) - half


def approach_speed(error: float, a_max: float, dt: float) -> float:
    """Relative velocity that closes `error`: linear near 0, a square root law (braking) far off.

    Both parts meet with equal value and slope.
    """
    gain = GAIN / dt
    usable = APPROACH * a_max
    linear = usable / (gain * gain)
    if abs(error) <= linear:
        return gain * error
    return math.copysign(math.sqrt(2.0 * usable * (abs(error) - 0.5 * linear)), error)
