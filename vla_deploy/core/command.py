# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The line of motion that the controller executes, and how it is extended tick by tick.

What was published up to the splice time (now + lead) is never changed: the controller may be
anywhere on it. Everything after may be replaced, and the line always ends at rest. So at any
instant the controller executes one of these cubics exactly, whenever a message reached it.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import GRID_NS, Bounds
from vla_deploy.core.braking import brake, slew_then_brake
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.joining import Joining, samples_ahead
from vla_deploy.core.limiter import StepLimiter
from vla_deploy.core.plan import Plan
from vla_deploy.core.trajectory import (
    NS_TO_S,
    Trajectory,
    at_rest,
)
from vla_deploy.core.workspace import Breach, Workspace

Array = NDArray[np.float64]
_Start = tuple[list[int], bytes]

FORGET_ABOVE = 100
"""Knots of the line above which the history older than a usable joint state is dropped."""
PATIENCE_S = 0.02
"""Distance from a clamped plan, as time at full speed, from which its clock is slowed; it stands
still at twice that."""
AHEAD_PERIODS = 1.5
"""Periods ahead of a tick at which a joined plan begins, so that the next tick can publish it."""


class CommandLine:
    """The commanded motion from its start at rest; joints in the order of the bounds."""

    def __init__(
        self, now_ns: int, position: Array, bounds: Bounds, config: GuardConfig,
        workspace: Workspace | None = None,
    ) -> None:
        self._bounds, self._config, self._workspace = bounds, config, workspace
        self._lead_ns = _ns(config.lead_s)
        self._horizon_ns = _ns(config.horizon_s)
        self._ahead_ns = _ns(AHEAD_PERIODS * config.period_s)
        self._window_ns = _ns(config.join_window_s)
        self._history_ns = _ns(config.joint_state_timeout_s)
        # A limiter step covers two ticks, so that the next tick finds it still under way.
        self._step_ns = max(2, 2 * round(config.period_s * 1e9 / GRID_NS)) * GRID_NS
        self._line = at_rest(now_ns, np.array(position, np.float64))
        self._tail_ns = now_ns
        self._rest_ns = now_ns
        self._plan: Plan | None = None
        self._lag_ns = 0
        self._clock_ns: int | None = None
        self._route: Trajectory | None = None
        self._route_index = 0
        # Braking tails made before they are needed: from a knot of the route, and from the state in
        # which a plan not yet joined will probably need its first.
        self._next_tail: tuple[Trajectory, int, Trajectory] | None = None
        self._first_tail: tuple[_Start, Trajectory] | None = None
        self._moving = False
        self._joining = Joining(bounds)
        self._limiter = StepLimiter(bounds, self._step_ns * NS_TO_S)
        self._deceleration: list[float] = bounds.acceleration.tolist()
        self._per_velocity = 1.0 / bounds.velocity
        self._per_velocity_of_joints: list[float] = self._per_velocity.tolist()
        self.worst_margin = 1.0
        self.blocked: Breach | None = None
        """Why the last call of `follow` left its plan: the motion would leave the workspace."""

    def sample(self, t_ns: int) -> tuple[Array, Array]:
        """Commanded position and velocity [joints] at t_ns."""
        return self._line.state(t_ns)

    def place(self, t_ns: int) -> Array:
        """Commanded position [joints] at t_ns."""
        return self._line.place(t_ns)

    def covers(self, t_ns: int) -> bool:
        """Whether the line still remembers what was commanded at t_ns."""
        return t_ns >= self._line.start_ns

    def tracking_error(self, position: Array, stamp_ns: int) -> list[float]:
        """Distance [joints] of a position measured at stamp_ns, which the line must cover."""
        return [abs(q - to) for q, to in zip(
            position.tolist(), self._line.place_of_joints(stamp_ns), strict=True)]

    def at_rest(self, now_ns: int) -> bool:
        """Whether braking has ended by now."""
        return not self._moving and now_ns >= self._rest_ns

    def on_plan(self) -> bool:
        """Whether the line follows the samples of a plan themselves, not the limiter."""
        return self._route is not None

    @property
    def lag_ns(self) -> int:
        """How far the clock of the plan is behind ROS time; it never gains on it."""
        return self._lag_ns

    def splice_ns(self, now_ns: int) -> int:
        """Earliest time from which the line may be replaced.

        now + lead, put off by less than two grid steps where a knot lies close: two knots of the
        line are never nearer than the grid.
        """
        t_ns = now_ns + self._lead_ns
        i = self._line.segment_at(t_ns)
        ns = self._line.ns
        if i >= 0 and ns[i] < t_ns:
            t_ns = max(t_ns, ns[i] + GRID_NS)
        if i + 1 < len(ns) and ns[i + 1] < t_ns + GRID_NS:
            t_ns = ns[i + 1]
        return t_ns

    def hold(self, now_ns: int) -> Trajectory:
        """Brake from the splice time if still moving on, else stay on the tail or at rest.

        Where braking now would leave the limits, what was published is followed to its end, which
        does not.
        """
        self._plan = self._route = None
        self._lag_ns = 0
        splice_ns = self.splice_ns(now_ns)
        if self._moving and splice_ns < self._tail_ns:
            position, velocity = self.sample(splice_ns)
            self._replace(now_ns, splice_ns, splice_ns,
                          self._brake(self._line, splice_ns, position, velocity))
        self._moving = False
        return self._message(now_ns)

    def follow(self, now_ns: int, plan: Plan) -> Trajectory:
        """Follow the plan: its own samples once the motion has joined them, else the limiter."""
        if plan is not self._plan:
            self._plan, self._route = plan, None
            self._lag_ns, self._clock_ns = 0, None
        self._moving, self.blocked = True, None
        ahead_ns = self._ahead_ns
        if self._route is not None:
            if self._route_index == len(self._route.ns) - 1:
                return self._message(now_ns)  # the plan is published to its end, tail included
            if self._route.ns[self._route_index] < now_ns + self._lead_ns:
                # A late tick: the controller is beyond the start of what would come next.
                self._route, ahead_ns = None, 0
        if self._route is not None:
            self._extend(now_ns)
            return self._message(now_ns)
        if plan.hull is None:  # not to be joined
            self._step_toward(now_ns, self.splice_ns(now_ns), plan)
            return self._message(now_ns)
        # Where the line goes on for long enough, the plan is joined in this tick and published in
        # the next one, so that no tick has to do both.
        join_ns = self.splice_ns(now_ns + ahead_ns)
        later = ahead_ns > 0 and join_ns <= self._tail_ns
        if not later:
            join_ns = self.splice_ns(now_ns)
        if not self._join(join_ns, plan):
            self._step_toward(now_ns, self.splice_ns(now_ns) if later else join_ns, plan)
        elif not later:
            self._extend(now_ns)
        return self._message(now_ns)

    def expect(self, now_ns: int, plan: Plan) -> None:
        """Make the tail that a plan will need first; a wrong guess only costs time.

        A tick joins the plan and the next one publishes it: one to two periods from now.
        """
        knots = plan.knots
        end = bisect_left(knots.ns, now_ns + self._ahead_ns + self._horizon_ns)
        if plan.hull is not None and 0 < end < len(knots.ns):
            tail = self._brake(knots, knots.ns[end], knots.position[end], knots.velocity[end])
            self._first_tail = _start(knots, end), tail

    def shift(self, delta_ns: int) -> None:
        """Move the whole line in time, after a jump of the clock; any plan is left."""
        self._line = self._line.shifted(delta_ns)
        self._tail_ns += delta_ns
        self._rest_ns += delta_ns
        self._plan = self._route = None
        self._lag_ns = 0

    def _join(self, splice_ns: int, plan: Plan) -> bool:
        """Find the first sample that one cubic from the splice state reaches within limits."""
        samples = samples_ahead(plan, splice_ns, splice_ns + self._window_ns)
        if not samples:
            return False
        position, velocity = self._line.state_of_joints(splice_ns)
        route = self._joining.route(splice_ns, position, velocity, plan, samples)
        if route is None:
            return False
        self._route, self._route_index = route, 0
        return True

    def _extend(self, now_ns: int) -> None:
        """Publish the route as far as the horizon, then the braking tail."""
        route, begin = self._route, self._route_index
        assert route is not None
        horizon_ns = now_ns + self._horizon_ns
        if begin > 0 and route.ns[begin] >= horizon_ns:
            self._look_ahead(route, begin + 1)
            return
        end = max(begin + 1, bisect_left(route.ns, horizon_ns))
        end = min(end, len(route.ns) - 1)
        if route.ns[end] > horizon_ns + self._horizon_ns:
            # A plan with long periods: end inside a segment, on the same cubic.
            cut_ns = max(horizon_ns, route.ns[end - 1] + GRID_NS)
            before, after = route.split(cut_ns)
            self._route = route = before.then(after.knots(1))
        self._route_index = end
        self._replace(now_ns, route.ns[begin], route.ns[end], route.knots(begin, end),
                      self._tail_from(route, end))

    def _look_ahead(self, route: Trajectory, end: int) -> None:
        """Make the next tail in a tick that has nothing else to do."""
        self._next_tail = route, end, self._tail_from(route, end)

    def _tail_from(self, route: Trajectory, end: int) -> Trajectory:
        """The braking tail from a knot of a route."""
        made = self._next_tail
        if made is not None and made[0] is route and made[1] == end:
            return made[2]
        if self._first_tail is not None and self._first_tail[0] == _start(route, end):
            return self._first_tail[1]
        return self._brake(route, route.ns[end], route.position[end], route.velocity[end])

    def _brake(self, motion: Trajectory, t_ns: int, position: Array, velocity: Array) -> Trajectory:
        """The braking tail of a motion from its state at t_ns."""
        return brake(t_ns, position.tolist(), velocity.tolist(), self._deceleration)

    def _step_toward(self, now_ns: int, splice_ns: int, plan: Plan) -> None:
        """One step of the limiter toward the plan, where its own clock says it should be.

        Where the joints cannot keep up with a clamped plan, the clock waits for them: the motion
        stays near the path of the plan, and is never faster along it than the policy asked.
        """
        position, velocity = self._line.state_of_joints(splice_ns)
        rate = 1.0
        if plan.hull is None:
            passed_ns = 0 if self._clock_ns is None else max(0, splice_ns - self._clock_ns)
            rate = self._rate(plan, splice_ns - self._lag_ns - passed_ns, position)
            self._lag_ns += round((1.0 - rate) * passed_ns)
            self._clock_ns = splice_ns
        target_ns = splice_ns - self._lag_ns + round(rate * self._step_ns)
        target_position, target_velocity = plan.knots.state_of_joints(target_ns)
        self._step(now_ns, splice_ns, position, velocity, target_position,
                   [rate * drift for drift in target_velocity])

    def _step(
        self, now_ns: int, splice_ns: int, position: Sequence[float], velocity: Sequence[float],
        target_position: Iterable[float], target_velocity: Iterable[float],
    ) -> None:
        """Let the limiter make a step from a state of the line, and brake after it."""
        after, brakes = self._limiter.step(position, velocity, target_position, target_velocity)
        slew_steps = [0 if at_once else self._step_ns // GRID_NS for at_once in brakes]
        self._replace(now_ns, splice_ns, splice_ns + self._step_ns, slew_then_brake(
            splice_ns, position, velocity, after, slew_steps, self._deceleration))

    def _rate(self, plan: Plan, plan_ns: int, position: Sequence[float]) -> float:
        """Rate of the plan's clock, 0..1: its pace, and less if a joint is far from its target."""
        at = min(max(plan.knots.segment_at(plan_ns), 0), len(plan.pace) - 1)
        target = plan.knots.place_of_joints(plan_ns)
        behind_s = max([abs(to - q) * per for to, q, per in zip(
            target, position, self._per_velocity_of_joints, strict=True)])
        return min(max(2.0 - behind_s / PATIENCE_S, 0.0), plan.pace[at])

    def _replace(self, now_ns: int, splice_ns: int, tail_ns: int, *fresh: Trajectory) -> None:
        """Put `fresh`, which begins with the state at splice_ns, in place of all that follows.

        It brakes from tail_ns on. If it would not stay inside, all stays as it was published.
        """
        kept = bisect_left(self._line.ns, splice_ns)
        standing = self._standing(now_ns, fresh[-1])
        line = self._line.knots(0, kept).then(*fresh, *standing)
        if not self._stays_inside(line.knots(kept, len(line.ns) - len(standing))):
            self._plan = self._route = None
            self._moving = False
            return
        self._line, self._tail_ns, self._rest_ns = line, tail_ns, fresh[-1].end_ns
        self._measure_margin(line.knots(kept))

    def _standing(self, now_ns: int, motion: Trajectory) -> tuple[Trajectory, ...]:
        """What makes a motion that ends at rest reach at least one horizon ahead."""
        if motion.end_ns >= now_ns + self._horizon_ns:
            return ()
        return (at_rest(now_ns + 2 * self._horizon_ns, motion.position[-1]),)

    def _stays_inside(self, fresh: Trajectory) -> bool:
        if self._workspace is None:
            return True
        self.blocked = self._workspace.breach(fresh)
        return self.blocked is None

    def _measure_margin(self, motion: Trajectory) -> None:
        """Keep the smallest distance of a knot to position and velocity limits, as a part."""
        middle, per_limit = _margin_tables(self._bounds, len(motion.ns))
        away = np.subtract(motion.states, middle)
        np.abs(away, out=away)
        away *= per_limit
        off_centre, speed = away.reshape(2, -1)
        self.worst_margin = min(self.worst_margin, 0.5 - float(off_centre[off_centre.argmax()]),
                                1.0 - float(speed[speed.argmax()]))

    def _message(self, now_ns: int) -> Trajectory:
        """The line from the last knot not after now; it reaches at least one horizon ahead."""
        line = self._line
        for standing in self._standing(now_ns, line):
            line = line.then(standing)
        if len(line.ns) > FORGET_ABOVE:
            line = line.knots(max(0, line.segment_at(now_ns - self._history_ns)))
        self._line = line
        return line.knots(max(0, line.segment_at(now_ns)))


@functools.lru_cache(maxsize=256)
def _margin_tables(bounds: Bounds, knots: int) -> tuple[Array, Array]:
    """Of positions and velocities [2, knots, joints]: the middle of their range, and what makes a
    part of the range's width, or of the speed limit, of a distance from it. Stretching them each
    time is slow."""
    middle = 0.5 * (bounds.lower + bounds.upper)
    middles = np.array([middle, np.zeros_like(middle)])
    per = np.array([1.0 / (bounds.upper - bounds.lower), 1.0 / bounds.velocity])
    return np.repeat(middles[:, None], knots, axis=1), np.repeat(per[:, None], knots, axis=1)


def _start(motion: Trajectory, knot: int) -> _Start:
    """All that a braking tail from a knot depends on: time, position and velocity there, and at the
    knot before, from which the acceleration follows that a limited jerk begins with."""
    two = slice(knot - 1, knot + 1)
    return motion.ns[two], motion.states[:, two].tobytes()


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
