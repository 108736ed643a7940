# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Where a motion can join a plan: the first sample that one cubic reaches within every limit.

Nor may that cubic swing beyond what the plan itself passes through until that sample; a joint that
cannot stop sooner may go as far as it needs to.

Plain floats, one joint after the other: most samples are out of reach of the first joint looked at,
and mostly the first one within reach of all will do.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import GRID_NS, Bounds
from vla_deploy.core.plan import Plan
from vla_deploy.core.trajectory import (
    NS_TO_S,
    CubicHull,
    Trajectory,
    cubic_hull,
    segment_extrema,
    segment_hull,
)

Array = NDArray[np.float64]
Floats = list[float]

SWING = 1e-9
"""Rounding [rad or m] allowed where a joining cubic is held against the plan."""


def samples_ahead(plan: Plan, splice_ns: int, until_ns: int) -> range:
    """The samples of a plan up to until_ns that a motion may join from splice_ns on."""
    ns = plan.knots.ns
    return range(bisect_left(ns, splice_ns + GRID_NS), bisect_right(ns, until_ns))


class Joining:
    """Looks for the way from a state of motion onto a plan, for joints in the order of bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._lower: Floats = bounds.lower.tolist()
        self._upper: Floats = bounds.upper.tolist()
        self._velocity: Floats = bounds.velocity.tolist()
        self._acceleration: Floats = bounds.acceleration.tolist()

    def route(
        self, splice_ns: int, position: Floats, velocity: Floats, plan: Plan, samples: range
    ) -> Trajectory | None:
        """The motion from a state [joints] at splice_ns over one cubic to the first of the samples
        that it fits to, and on along the plan, which has a hull; None if it fits to none.
        """
        knots, swing = plan.knots, _Swing(plan, splice_ns)
        gentle: list[tuple[int, Floats, Floats]] = []
        clear = False
        for k in samples:
            h = (knots.ns[k] - splice_ns) * NS_TO_S
            p1, v1 = knots.states[:, k].tolist()
            cubics = self._gentle(position, p1, velocity, v1, h)
            if not cubics:
                continue
            lowest, highest = swing.until(k)
            gentle.append((k, lowest, highest))
            # Mostly the cheap hull shows that a cubic fits; only else its exact extrema are needed.
            if self._inside(cubics, lowest, highest, position, velocity):
                clear = True
                if self._below_curves(cubics, position, p1, velocity, v1, h):
                    return _route(splice_ns, position, velocity, plan, k)
        if clear or not gentle:
            return None
        return self._route_in_doubt(splice_ns, position, velocity, plan, gentle)

    def _gentle(self, p0: Floats, p1: Floats, v0: Floats, v1: Floats, h: float) -> list[CubicHull]:
        """Hull of each joint's cubic of h seconds; nothing if one needs too much acceleration."""
        cubics = []
        for q0, q1, w0, w1, most in zip(p0, p1, v0, v1, self._acceleration, strict=True):
            cubic = cubic_hull(q0, q1, w0, w1, h)
            if cubic[3] > most:
                return []
            cubics.append(cubic)
        return cubics

    def _inside(
        self, cubics: list[CubicHull], lowest: Floats, highest: Floats, position: Floats,
        velocity: Floats,
    ) -> bool:
        """Whether hulls are within the limits and the swing of the plan [joints]."""
        for j, ((lower, upper, speed, _), low, high) in enumerate(
            zip(cubics, lowest, highest, strict=True)
        ):
            if speed > self._velocity[j]:
                return False
            if (lower < low - SWING or lower < self._lower[j]
                    or upper > high + SWING or upper > self._upper[j]):
                low, high = self._swing_to_stop(j, low, high, position[j], velocity[j])
                if lower < low or upper > high:
                    return False
        return True

    def _swing_to_stop(
        self, j: int, low: float, high: float, p: float, v: float
    ) -> tuple[float, float]:
        """Where a joint may swing to if it must: at most as far as it goes to stop, and from
        outside its bounds no farther."""
        stop = v * abs(v) / (2.0 * self._acceleration[j])
        low, high = min(low, p + min(stop, 0.0)), max(high, p + max(stop, 0.0))
        return (max(low - SWING, min(self._lower[j], p)),
                min(high + SWING, max(self._upper[j], p)))

    def _below_curves(
        self, cubics: list[CubicHull], p0: Floats, p1: Floats, v0: Floats, v1: Floats, h: float
    ) -> bool:
        """Whether the cubics stay below the velocity limits that depend on position."""
        envelope = self._bounds.envelope
        if envelope is None or all([
            curve is None or curve.clearly_below(max(abs(begin), abs(end), speed), lower, upper)
            for curve, (lower, upper, speed, _), begin, end in zip(
                envelope.curves, cubics, v0, v1, strict=True)
        ]):
            return True
        from_p, to_p, from_v, to_v = np.array([[p0], [p1], [v0], [v1]])
        hull = segment_hull(from_p, to_p, from_v, to_v, (to_p - from_p) / h, h)
        speed, limit = envelope.judge(from_p, to_p, from_v, to_v, h, hull)
        return bool((speed <= limit).all())

    def _route_in_doubt(
        self, splice_ns: int, position: Floats, velocity: Floats, plan: Plan,
        gentle: list[tuple[int, Floats, Floats]],
    ) -> Trajectory | None:
        """As `route`, by the exact extrema of the cubics that are gentle enough.

        gentle: those samples, and lowest and highest position of the plan until there.
        """
        knots, bounds = plan.knots, self._bounds
        rows = [k for k, _, _ in gentle]
        swing = np.array([
            [self._swing_to_stop(j, *joint) for j, joint in enumerate(
                zip(lowest, highest, position, velocity, strict=True))]
            for _, lowest, highest in gentle])
        lowest, highest = swing[..., 0], swing[..., 1]
        p1, v1 = knots.position[rows], knots.velocity[rows]
        p0, v0 = np.broadcast_to(position, p1.shape), np.broadcast_to(velocity, p1.shape)
        h = np.array([[(knots.ns[k] - splice_ns) * NS_TO_S] for k in rows])
        extrema = segment_extrema(p0, p1, v0, v1, h)
        fits = ((extrema.speed <= bounds.velocity) & (extrema.lower >= lowest)
                & (extrema.upper <= highest)).all(axis=1)
        for i in np.flatnonzero(fits).tolist():
            ends = position, p1[i].tolist(), velocity, v1[i].tolist()
            cubics = self._gentle(*ends, float(h[i, 0]))
            if self._below_curves(cubics, *ends, float(h[i, 0])):
                return _route(splice_ns, position, velocity, plan, rows[i])
        return None


class _Swing:
    """What a plan passes through from its segment at a time on until one of its samples."""

    def __init__(self, plan: Plan, t_ns: int) -> None:
        assert plan.hull is not None
        self._hull = plan.hull
        self._row = max(plan.knots.segment_at(t_ns), 0)
        self._lowest: Floats = self._hull.lower[self._row].tolist()
        self._highest: Floats = self._hull.upper[self._row].tolist()

    def until(self, k: int) -> tuple[Floats, Floats]:
        """Lowest and highest position [joints] until sample k; k must not fall."""
        while self._row < k - 1:
            self._row += 1
            self._lowest = list(map(min, self._lowest, self._hull.lower[self._row].tolist()))
            self._highest = list(map(max, self._highest, self._hull.upper[self._row].tolist()))
        return self._lowest, self._highest


def _route(
    splice_ns: int, position: Floats, velocity: Floats, plan: Plan, k: int
) -> Trajectory:
    start = Trajectory([splice_ns], np.array([[position], [velocity]]))
    return start.then(plan.knots.knots(k))
