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

SIDES = np.array([[1.0], [-1.0]])
APPROACH = 0.5
"""Part of the acceleration used to catch up with a target; the rest is left to its own motion."""


class StepLimiter:
    """One step of dt seconds for all joints; constants of the bounds are computed once."""

    def __init__(self, bounds: Bounds, dt: float) -> None:
        self._bounds, self._dt = bounds, dt
        self._farthest = np.stack((bounds.upper, -bounds.lower))
        self._window = bounds.acceleration * dt
        self._half = 0.5 * self._window
        self._half_squared = self._half * self._half
        self._twice = 2.0 * bounds.acceleration

    def step(
        self, position: Array, velocity: Array, target_position: Array, target_velocity: Array
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Velocity [joints] after dt, and which joints must brake to rest at once instead.

        target_position, target_velocity [joints]: where the target will be after dt; a target
        velocity of exactly 0 is a target at rest and is not overshot. Where a joint must brake,
        the velocity returned is its present one.
        """
        bounds, dt = self._bounds, self._dt
        target = clip(target_position, bounds.lower, bounds.upper)
        drift = np.where(target == target_position, target_velocity, 0.0)
        drift = clip(drift, -bounds.velocity, bounds.velocity)
        error = target - (position + (0.5 * dt) * (velocity + drift))
        desired = drift + approach_speed(error, bounds.acceleration, dt)

        # Row 0 looks up, row 1 down: room toward the bound, or toward a target at rest.
        outward = SIDES * velocity
        room = np.maximum(self._farthest - SIDES * position, 0.0)
        ahead = SIDES * (target - position)
        room = np.where((drift == 0.0) & (ahead >= 0.0), np.minimum(room, ahead), room)
        fastest, brakes = self.room_bound(outward, room)
        fastest = np.minimum(fastest, bounds.velocity)
        after = np.maximum(np.minimum(desired, fastest[0]), -fastest[1])
        # Last, so that a start which is not viable brakes as hard as it may and no harder.
        after = clip(after, velocity - self._window, velocity + self._window)
        brake_now = brakes[0] | brakes[1]
        return np.where(brake_now, velocity, after), brake_now

    def room_bound(self, outward: Array, room: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Largest v' toward a bound `room` ahead, and where even v' = 0 would pass it.

        Positive root of v'^2 / (2a) + (v + v') dt / 2 = room; outward [..., joints] is v.
        """
        spare = room - (0.5 * self._dt) * outward
        brakes = (spare < 0.0) & (outward > 0.0)
        root = np.sqrt(self._half_squared + self._twice * np.maximum(spare, 0.0))
        return root - self._half, brakes


def clip(value: Array, lower: Array, upper: Array) -> Array:
    """np.clip without its overhead, which shows on a few joints."""
    return np.minimum(np.maximum(value, lower), upper)


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
