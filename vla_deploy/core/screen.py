# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Show cheaply that a plan is within every limit; what this does not show is judged in full.

Most plans are clean, and the tick in which one comes is the longest. So the limits are laid out
once as tables of the shape of the plan, and each rule is one comparison of two tables.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.plan import PlanGrid
from vla_deploy.core.trajectory import Hull, Trajectory

Array = NDArray[np.float64]


def holds(table: NDArray[np.bool_]) -> bool:
    """Whether all of a small table is true, in a tenth of the time of `all()`."""
    return 0 not in table.tobytes()


@dataclass(frozen=True, eq=False)
class Screen:
    """Limits as tables, float64; segments or knots by joints, as the quantity they hold for."""

    bounds: Bounds
    lower: Array
    upper: Array
    knot_lower: Array
    knot_upper: Array
    velocity: Array
    acceleration: Array
    twice_acceleration: Array
    asked: Array
    change: Array
    """Largest change between two samples that ask for a velocity."""
    slope_change: Array
    """The same between two slopes of positions, which lie half of a span apart."""

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of(bounds: Bounds, knot_scale: float, grid: PlanGrid) -> Screen:
        """Return the tables for plans on a grid; they are made once and shared."""
        knots = len(grid.offsets)

        def table(rows: int, limit: Array) -> Array:
            made = np.tile(limit, (rows, 1))
            made.setflags(write=False)
            return made

        velocity, acceleration = knot_scale * bounds.velocity, knot_scale * bounds.acceleration
        return Screen(
            bounds,
            lower=table(knots - 1, bounds.lower),
            upper=table(knots - 1, bounds.upper),
            knot_lower=table(knots, bounds.lower),
            knot_upper=table(knots, bounds.upper),
            velocity=table(knots - 1, bounds.velocity),
            acceleration=table(knots - 1, bounds.acceleration),
            twice_acceleration=table(knots, 2.0 * bounds.acceleration),
            asked=table(knots, velocity),
            change=table(knots - 1, grid.shortest_gap_s * acceleration),
            slope_change=table(knots - 2, 0.5 * grid.shortest_span_s * acceleration),
        )

    def passes(self, knots: Trajectory, asked: Array, hull: Hull) -> bool:
        """Whether the plan is beyond doubt within every limit that `check_motion` holds it to.

        asked: velocities [knots, joints], or slopes between positions [segments, joints]. False
        says nothing.
        """
        of_slopes = len(asked) < len(knots.ns)
        change = asked[1:] - asked[:-1]
        np.abs(change, out=change)
        if not (
            holds(hull.lower >= self.lower)
            and holds(hull.upper <= self.upper)
            and holds(np.abs(asked) <= self.asked[:len(asked)])
            and holds(hull.inner_speed <= self.velocity)
            and holds(change <= (self.slope_change if of_slopes else self.change))
            and holds(hull.acceleration <= self.acceleration)
        ):
            return False
        speed = np.abs(knots.velocity)
        stop = speed * speed
        stop /= self.twice_acceleration
        room = np.minimum(self.knot_upper - knots.position, knots.position - self.knot_lower)
        if not holds(stop <= room):
            return False
        envelope = self.bounds.envelope
        if envelope is None:
            return True
        fastest = np.maximum(speed[1:], speed[:-1])
        np.maximum(fastest, hull.inner_speed, out=fastest)
        return holds(envelope.clearly_below(fastest, hull.lower, hull.upper))
