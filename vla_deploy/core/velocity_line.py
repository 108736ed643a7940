# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The line of motion of a robot that is commanded in velocity.

Nothing makes such a robot return to a position, so the positions of this line are an estimate: each
measurement moves the whole line to where the robot really is, and the room to its limits with it.
A plan counts by its velocities alone; it is joined wherever the robot is by then.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.command import CommandLine
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.joining import samples_ahead
from vla_deploy.core.plan import Plan
from vla_deploy.core.trajectory import NS_TO_S, Trajectory, segment_hull, trajectory_extrema
from vla_deploy.core.workspace import Workspace

Array = NDArray[np.float64]

DRIFT_WINDOW_NS = 1_000_000_000
"""Over this time what the robot moved otherwise than commanded counts as tracking error."""


class VelocityLine(CommandLine):
    """The commanded velocities from a start at rest, and where they lead."""

    def __init__(
        self, now_ns: int, position: Array, bounds: Bounds, config: GuardConfig,
        workspace: Workspace | None = None,
    ) -> None:
        super().__init__(now_ns, position, bounds, config, workspace)
        self._drift = np.zeros(len(position))
        self._drifts: deque[tuple[int, Array]] = deque()

    def tracking_error(self, position: Array, stamp_ns: int) -> list[float]:
        """Take a measurement [joints]; how far the robot drifted within DRIFT_WINDOW_NS."""
        moved = position - self.sample(stamp_ns)[0]
        self._move(moved)
        self._drifts.append((stamp_ns, self._drift))
        self._drift = self._drift + moved
        while self._drifts[0][0] < stamp_ns - DRIFT_WINDOW_NS:
            self._drifts.popleft()
        drifted: list[float] = np.abs(self._drift - self._drifts[0][1]).tolist()
        return drifted

    def expect(self, now_ns: int, plan: Plan) -> None:
        """Make nothing yet: where the plan will lead is not known."""

    def _look_ahead(self, route: Trajectory, end: int) -> None:
        """Make nothing yet: the next measurement moves the route."""

    def shift(self, delta_ns: int) -> None:
        """Move the whole line in time; what was measured before a jump of the clock is left."""
        super().shift(delta_ns)
        self._drifts.clear()

    def _move(self, offset: Array) -> None:
        """Move the line to where the robot is, and leave a plan that would go too far from there.
        """
        self._line = self._line.moved(offset)
        if self._route is not None:
            self._route = self._route.moved(offset)
            if not self._clear(self._route.knots(self._route_index)):
                self._route = None

    def _join(self, splice_ns: int, plan: Plan) -> bool:
        """Find the first sample whose velocity can be reached by then, and go on from there."""
        knots = plan.knots
        samples = samples_ahead(plan, splice_ns, splice_ns + self._window_ns)
        if not samples:
            return False
        first, last = samples.start, samples.stop
        position, velocity = self.sample(splice_ns)
        h = (knots.times[first:last] - splice_ns).astype(np.float64)[:, None] * NS_TO_S
        change = np.abs(knots.velocity[first:last] - velocity)
        fits = (change <= self._bounds.acceleration * h).all(axis=1)
        if not fits.any():
            return False
        target = int(fits.argmax())
        rest = knots.knots(first + target)
        reached = position + 0.5 * h[target] * (velocity + rest.velocity[0])
        rest = rest.moved(reached - rest.position[0])
        route = Trajectory([splice_ns], np.array([[position], [velocity]])).then(rest)
        if not self._clear(route):
            return False
        self._route, self._route_index = route, 0
        return True

    def _clear(self, route: Trajectory) -> bool:
        """Whether a route of two knots or more stays where it may go, braking at its end included.
        """
        if len(route.ns) < 2:
            return True
        bounds, start = self._bounds, route.position[0]
        extrema = trajectory_extrema(route)
        inside = (extrema.lower >= np.minimum(bounds.lower, start)) & (
            extrema.upper <= np.maximum(bounds.upper, start))
        if not inside.all():
            return False
        room = bounds.viability_room(route.position, route.velocity)
        if not ((room >= 0.0) | (route.velocity == 0.0)).all():
            return False
        if bounds.envelope is None:
            return True
        p, v = route.position, route.velocity
        h = (np.diff(route.times).astype(np.float64) * NS_TO_S)[:, None]
        hull = segment_hull(p[:-1], p[1:], v[:-1], v[1:], (p[1:] - p[:-1]) / h, h)
        speed, limit = bounds.envelope.judge(p[:-1], p[1:], v[:-1], v[1:], h, hull)
        return bool((speed <= limit).all())

    def _step_toward(self, now_ns: int, splice_ns: int, plan: Plan) -> None:
        """One step of the limiter toward the plan's velocity; all joints change in proportion."""
        position, velocity = self.sample(splice_ns)
        step_s = self._step_ns * NS_TO_S
        change = plan.knots.state(splice_ns + self._step_ns)[1] - velocity
        needed = float((np.abs(change) / (self._bounds.acceleration * step_s)).max())
        wanted = velocity + change / max(needed, 1.0)
        reached = position + (0.5 * step_s) * (velocity + wanted)
        self._step(now_ns, splice_ns, position.tolist(), velocity.tolist(), reached.tolist(),
                   wanted.tolist())

