# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""One step of each joint toward a target that may move, always able to stop inside its bounds.

Acceleration is constant within a step: q' = q + (v + v') dt / 2. With the room d toward a bound,
the new velocity v' keeps v'^2 / (2a) + (v + v') dt / 2 <= d, so that full braking from the next
state stays inside. Where no v' >= 0 does that, the joint brakes at once and rests inside the step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import Bounds

Array = NDArray[np.float64]

APPROACH = 0.5
"""Part of the acceleration used to catch up with a target; the rest is left to its own motion."""


def limit_step(
    position: Array,
    velocity: Array,
    target_position: Array,
    target_velocity: Array,
    bounds: Bounds,
    dt: float,
) -> tuple[Array, Array]:
    """Velocity [joints] after dt, and how long [joints] each joint slews to it before it brakes.

    target_position, target_velocity [joints]: where the target will be after dt; a target
    velocity of exactly 0 is a target at rest and is not overshot. A joint that must brake at once
    has slew time 0 and its present velocity; every other one slews for dt.
    """
    a = bounds.acceleration
    target = np.clip(target_position, bounds.lower, bounds.upper)
    drift = np.where(target == target_position, target_velocity, 0.0)
    drift = np.clip(drift, -bounds.velocity, bounds.velocity)

    desired = drift + approach_speed(target - (position + 0.5 * (velocity + drift) * dt), a, dt)

    above = np.maximum(bounds.upper - position, 0.0)
    below = np.maximum(position - bounds.lower, 0.0)
    ahead = target - position
    rests = drift == 0.0
    above = np.where(rests & (ahead >= 0.0), np.minimum(above, ahead), above)
    below = np.where(rests & (ahead <= 0.0), np.minimum(below, -ahead), below)

    highest, brakes_up = room_bound(velocity, above, a, dt)
    lowest, brakes_down = room_bound(-velocity, below, a, dt)
    highest = np.minimum(highest, bounds.velocity)
    lowest = np.maximum(-lowest, -bounds.velocity)
    after = np.maximum(np.minimum(desired, highest), lowest)
    # Last, so that a start which is not viable brakes as hard as it may and no harder.
    after = np.clip(after, velocity - a * dt, velocity + a * dt)
    brakes = brakes_up | brakes_down
    return np.where(brakes, velocity, after), np.where(brakes, 0.0, dt)


def room_bound(
    velocity: Array, room: Array, acceleration: Array, dt: float
) -> tuple[Array, NDArray[np.bool_]]:
    """Largest v' toward a bound `room` ahead, and where even v' = 0 would pass it.

    Positive root of v'^2 / (2a) + (v + v') dt / 2 = room.
    """
    half = 0.5 * acceleration * dt
    spare = room - 0.5 * velocity * dt
    brakes = (spare < 0.0) & (velocity > 0.0)
    return np.sqrt(half * half + 2.0 * acceleration * np.maximum(spare, 0.0)) - half, brakes


def approach_speed(error: Array, acceleration: Array, dt: float) -> Array:
    """Relative velocity that closes `error`: linear near 0, a square root law (braking) far off.

    The gain of the linear part, 0.4 / dt, is low enough not to oscillate at this step; both parts
    meet with equal value and slope.
    """
    gain = 0.4 / dt
    usable = APPROACH * acceleration
    linear = usable / (gain * gain)
    size = np.abs(error)
    far = np.sqrt(2.0 * usable * np.maximum(size - 0.5 * linear, 0.0))
    return np.sign(error) * np.where(size <= linear, gain * size, far)
