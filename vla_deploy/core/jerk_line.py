# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The line of motion of a robot with jerk limits: a safe plan untouched, all else by Ruckig.

Every stop, the way onto a plan, and what takes the place of a clamped plan have bounded jerk. That
last one aims, again in every tick, at rest where the plan will be one horizon ahead: it follows the
plan's path half a horizon late, and ends on it.

Between the states of a line and its limits no simple bound holds, so each piece is judged whole
before it is published. One that would not stay inside is left: what was published before it does,
and ends at rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import ROUNDING, Bounds
from vla_deploy.core.command import CommandLine
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.jerk import JerkMotion, acceleration_before
from vla_deploy.core.plan import Plan
from vla_deploy.core.screen import holds
from vla_deploy.core.trajectory import (
    NS_TO_S,
    Trajectory,
    hermite_coefficients,
    segment_hull,
    trajectory_extrema,
)
from vla_deploy.core.workspace import Workspace

Array = NDArray[np.float64]

SLOWER = (1.0, 2.0, 4.0, 8.0)
"""Durations, in horizons, that a way is tried with, where a shorter one is too fast somewhere."""
JERK_NOISE = 1e-5
"""Jerk [rad/s^3 or m/s^3] that rounding of positions makes between knots a millisecond apart."""


class JerkLine(CommandLine):
    """The commanded motion from its start at rest, jerk bounded but for the samples of plans."""

    def __init__(
        self, now_ns: int, position: Array, bounds: Bounds, config: GuardConfig,
        workspace: Workspace | None, motion: JerkMotion,
    ) -> None:
        super().__init__(now_ns, position, bounds, config, workspace)
        self._smooth = motion

    def _brake(self, motion: Trajectory, t_ns: int, position: Array, velocity: Array) -> Trajectory:
        return self._smooth.stop(t_ns, position, velocity, acceleration_before(motion, t_ns))

    def _stays_inside(self, fresh: Trajectory) -> bool:
        return self._within_bounds(fresh) and super()._stays_inside(fresh)

    def _join(self, splice_ns: int, plan: Plan) -> bool:
        """Find a sample that the plan can be joined at, and the way there by that very time."""
        if not super()._join(splice_ns, plan):
            return False
        route, self._route = self._route, None
        assert route is not None
        duration_s = (route.ns[1] - splice_ns) * NS_TO_S
        way = self._smooth.reach(
            splice_ns, route.position[0], route.velocity[0],
            acceleration_before(self._line, splice_ns), duration_s,
            (route.position[1], route.velocity[1], route.acceleration_at_start(1)
             if len(route.ns) > 2 else np.zeros_like(route.position[1])), on_time=True)
        if way is None or way.end_ns != route.ns[1]:
            return False
        way = way.knots(0, -1).then(route.knots(1, 2))
        if not (self._within_bounds(way) and self._within_jerk(way)):
            return False
        self._route = way.then(route.knots(2))
        return True

    def _step_toward(self, now_ns: int, splice_ns: int, plan: Plan) -> None:
        """Set out anew for where the plan will be a horizon ahead; if that is too far, stop."""
        position, velocity = self.sample(splice_ns)
        before = acceleration_before(self._line, splice_ns)
        rest = np.zeros_like(position)
        target = plan.knots.state(splice_ns + self._horizon_ns)[0]
        target = np.clip(target, self._bounds.lower, self._bounds.upper)
        behind = np.abs(plan.knots.state(splice_ns)[0] - position) * self._per_velocity
        self._lag_ns = round(float(behind.max()) * 1e9)
        for slower in SLOWER:
            fresh = self._smooth.reach(splice_ns, position, velocity, before,
                                       slower * self._config.horizon_s, (target, rest, rest))
            if fresh is not None and self._within_bounds(fresh):
                break
        else:
            fresh = self._brake(self._line, splice_ns, position, velocity)
        self._replace(now_ns, splice_ns, fresh.end_ns, fresh)

    def _within_jerk(self, way: Trajectory) -> bool:
        """Whether a way that ends in a sample, not in what Ruckig made of it, is smooth enough."""
        p, v = way.position, way.velocity
        h = (np.diff(way.times) * NS_TO_S)[:, None]
        jerk = hermite_coefficients(p[:-1], p[1:], v[:-1], v[1:], h)[1]
        return holds(np.abs(jerk) <= self._smooth.jerk * (1.0 + 0.5 * ROUNDING) + JERK_NOISE)

    def _within_bounds(self, motion: Trajectory) -> bool:
        """Whether a motion of two knots or more stays within the bounds.

        Where it begins outside, it is to go no farther.
        """
        bounds, p, v = self._bounds, motion.position, motion.velocity
        h = np.broadcast_to((np.diff(motion.times) * NS_TO_S)[:, None], p[1:].shape)
        hull = segment_hull(p[:-1], p[1:], v[:-1], v[1:], (p[1:] - p[:-1]) / h, h)
        lower, upper = np.minimum(bounds.lower, p[0]), np.maximum(bounds.upper, p[0])
        fastest = np.maximum(bounds.velocity, np.abs(v[0]))
        gentle = hull.acceleration <= bounds.acceleration * (1.0 + 0.5 * ROUNDING)
        if not holds(gentle):
            return False
        # Mostly the cheap hull shows the rest; only else the exact extrema are needed.
        speed = np.abs(v)
        if not (holds(hull.lower >= lower) and holds(hull.upper <= upper)
                and holds(hull.inner_speed <= fastest) and holds(speed <= fastest)):
            extrema = trajectory_extrema(motion)
            if not ((extrema.lower >= lower) & (extrema.upper <= upper)
                    & (extrema.speed <= fastest)).all():
                return False
        if bounds.envelope is None:
            return True
        return bounds.envelope.allows(p[:-1], p[1:], v[:-1], v[1:], h, hull)
