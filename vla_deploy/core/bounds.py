# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The limits a motion is built and checked against: a hair tighter than the limits in force.

Braking ends on a grid of GRID_NS, so that no two knots of a published trajectory lie closer than
that: an acceleration computed from rounded positions over a shorter time would be noise. Ending
on the grid may cost up to a * grid^2 of room, and rounding a few parts in 1e7; both are taken out
here, once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.envelope import SpeedEnvelope
from vla_deploy.core.limits import JointLimits

Array = NDArray[np.float64]

GRID_NS = 1_000_000
GRID_S = GRID_NS * 1e-9
ROUNDING = 1e-6
"""Part of velocity and acceleration limits given up to rounding."""
FARTHEST = 1e3
"""Bound [rad] of joints without position limits; beyond it rounding would show."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """float64 [joints]: position (soft margin included), velocity and acceleration bounds.

    envelope: the velocity limits that depend on position, or None.
    """

    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array
    envelope: SpeedEnvelope | None = None

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of(limits: JointLimits, soft_margin: float) -> Bounds:
        """Bounds inside `limits`; a soft margin that leaves no room is capped at a quarter."""
        acceleration = limits.acceleration * (1.0 - ROUNDING)
        grid_room = limits.acceleration * GRID_S**2
        envelope = SpeedEnvelope.of(limits, acceleration, grid_room)
        margin = np.maximum(soft_margin, grid_room)
        lower = np.where(limits.has_position, limits.lower, -FARTHEST)
        upper = np.where(limits.has_position, limits.upper, FARTHEST)
        margin = np.minimum(margin, 0.25 * (upper - lower))
        lower, upper = lower + margin, upper - margin
        if envelope is not None:
            # Beyond these, no speed toward the end of the range is allowed at all.
            lower, upper = np.maximum(lower, envelope.lower), np.minimum(upper, envelope.upper)
        return Bounds(
            lower=lower,
            upper=upper,
            velocity=limits.velocity * (1.0 - ROUNDING),
            acceleration=acceleration,
            envelope=envelope,
        )

    def viability_room(self, position: Array, velocity: Array) -> Array:
        """Room left after full braking from each state [..., joints], rad or m; negative where it
        is not enough.

        Along a motion within the acceleration bound, room minus braking distance only shrinks
        while it moves toward a bound: a motion whose knots have room and whose positions stay
        inside is viable at every instant. That does not hold for the velocity that depends on
        position, which is judged along the whole motion (core/envelope.py).
        """
        room = np.where(velocity > 0.0, self.upper - position, position - self.lower)
        return np.asarray(room - velocity * velocity / (2.0 * self.acceleration))
