# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Motion as knots with position and velocity, cubic Hermite between them.

This is what joint_trajectory_controller executes when every point carries both. Before the first
knot the motion stands at the first position, after the last knot at the last one; a published
trajectory always ends at rest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Times = NDArray[np.int64]

NS_TO_S = 1e-9


class Trajectory:
    """Knots in the order of time; not to be changed once made.

    ns: times [knots], ns, increasing, as plain integers, which are several times faster to look at
    one by one. states: float64 [2, knots, joints], positions and velocities: in one array, because
    a tick joins and cuts motions several times.
    """

    __slots__ = ('ns', 'states')

    def __init__(self, ns: list[int], states: Array) -> None:
        self.ns, self.states = ns, states

    @staticmethod
    def of(times: Times, position: Array, velocity: Array) -> Trajectory:
        """Knots at times int64 [knots], ns, with position and velocity float64 [knots, joints]."""
        return Trajectory(times.tolist(), np.array([position, velocity], np.float64))

    @property
    def times(self) -> Times:
        """Times int64 [knots], ns."""
        return np.array(self.ns, np.int64)

    @property
    def position(self) -> Array:
        """Positions float64 [knots, joints]: a view."""
        position: Array = self.states[0]
        return position

    @property
    def velocity(self) -> Array:
        """Velocities float64 [knots, joints]: a view."""
        velocity: Array = self.states[1]
        return velocity

    @property
    def start_ns(self) -> int:
        """Time of the first knot."""
        return self.ns[0]

    @property
    def end_ns(self) -> int:
        """Time of the last knot."""
        return self.ns[-1]

    def segment_at(self, t_ns: int) -> int:
        """Index of the last knot not after t_ns; -1 before the first knot."""
        return bisect_right(self.ns, t_ns) - 1

    def sample(self, t_ns: int) -> tuple[Array, Array, Array]:
        """Position, velocity and acceleration [joints] at t_ns; right-sided at a knot."""
        ns, i = self.ns, self.segment_at(t_ns)
        if not 0 <= i < len(ns) - 1:
            p0, v0 = self.states[:, max(i, 0)]
            zero = np.zeros_like(v0)
            return p0, v0 if t_ns == ns[max(i, 0)] else zero, zero
        h, s = (ns[i + 1] - ns[i]) * NS_TO_S, (t_ns - ns[i]) * NS_TO_S
        (p0, p1), (v0, v1) = self.states[:, i:i + 2]
        if s == 0.0:
            return p0, v0, self.acceleration_at_start(i)
        a0, jerk = hermite_coefficients(p0, p1, v0, v1, h)
        acceleration = a0 + jerk * s
        velocity = v0 + s * (a0 + (0.5 * s) * jerk)
        position = p0 + s * (v0 + s * (0.5 * a0 + (s / 6.0) * jerk))
        return position, velocity, acceleration

    def state(self, t_ns: int) -> tuple[Array, Array]:
        """Position and velocity [joints] at t_ns, as `sample`, in fewer operations."""
        position, velocity = self.state_of_joints(t_ns)
        return np.array(position), np.array(velocity)

    def state_of_joints(self, t_ns: int) -> tuple[list[float], list[float]]:
        """As `state`, in plain floats: on a handful of joints they are faster than arrays."""
        ns, i = self.ns, self.segment_at(t_ns)
        if not 0 <= i < len(ns) - 1 or t_ns == ns[i]:
            at = max(i, 0)
            position, velocity = self.states[:, at].tolist()
            return position, velocity if t_ns == ns[at] else [0.0] * len(velocity)
        h = (ns[i + 1] - ns[i]) * NS_TO_S
        s = (t_ns - ns[i]) * NS_TO_S / h
        r = 1.0 - s
        w, w0, w1 = s * s * (3.0 - 2.0 * s), h * s * r * r, h * s * s * r
        u, u0, u1 = 6.0 * s * r / h, r * (1.0 - 3.0 * s), s * (3.0 * s - 2.0)
        positions, velocities = [], []
        for p0, p1, v0, v1 in self._ends(i):
            way = p1 - p0
            positions.append(w * way + w0 * v0 - w1 * v1 + p0)
            velocities.append(u * way + u0 * v0 + u1 * v1)
        return positions, velocities

    def place(self, t_ns: int) -> Array:
        """Position [joints] at t_ns, as `state`."""
        return np.array(self.place_of_joints(t_ns))

    def place_of_joints(self, t_ns: int) -> list[float]:
        """As `place`, in plain floats."""
        ns, i = self.ns, self.segment_at(t_ns)
        if not 0 <= i < len(ns) - 1 or t_ns == ns[i]:
            position: list[float] = self.states[0, max(i, 0)].tolist()
            return position
        h = (ns[i + 1] - ns[i]) * NS_TO_S
        s = (t_ns - ns[i]) * NS_TO_S / h
        r = 1.0 - s
        w, w0, w1 = s * s * (3.0 - 2.0 * s), h * s * r * r, h * s * s * r
        return [w * (p1 - p0) + w0 * v0 - w1 * v1 + p0 for p0, p1, v0, v1 in self._ends(i)]

    def _ends(self, i: int) -> Iterable[tuple[float, float, float, float]]:
        """Of each joint: positions at both ends of segment i, then velocities."""
        positions, velocities = self.states[:, i:i + 2].tolist()
        return zip(*positions, *velocities, strict=True)

    def acceleration_at_start(self, i: int) -> Array:
        """Acceleration [joints] at knot i, of the segment that begins there."""
        h = (self.ns[i + 1] - self.ns[i]) * NS_TO_S
        (p0, p1), (v0, v1) = self.states[:, i:i + 2]
        return hermite_coefficients(p0, p1, v0, v1, h)[0]

    def knots(self, begin: int, end: int | None = None) -> Trajectory:
        """The knots begin..end-1 as a trajectory of their own (a view, no copy)."""
        return Trajectory(self.ns[begin:end], self.states[:, begin:end])

    def then(self, *others: Trajectory) -> Trajectory:
        """Append the knots of `others`, each of which must lie later."""
        ns = self.ns.copy()
        for other in others:
            ns += other.ns
        states = np.concatenate([self.states, *[other.states for other in others]], axis=1)
        return Trajectory(ns, states)

    def shifted(self, delta_ns: int) -> Trajectory:
        """The same motion, delta_ns later."""
        return Trajectory([t_ns + delta_ns for t_ns in self.ns], self.states)

    def moved(self, offset: Array) -> Trajectory:
        """The same motion from a place that is `offset` [joints] away."""
        states = self.states.copy()
        states[0] += offset
        return Trajectory(self.ns, states)

    def split(self, t_ns: int) -> tuple[Trajectory, Trajectory]:
        """Cut inside the motion: both parts hold the knot at t_ns and follow the same cubics."""
        if not self.start_ns < t_ns < self.end_ns:
            raise ValueError('split must lie inside the trajectory')
        i = self.segment_at(t_ns)
        if self.ns[i] == t_ns:
            return self.knots(0, i + 1), self.knots(i)
        knot = Trajectory([t_ns], np.array(self.sample(t_ns)[:2])[:, None])
        return self.knots(0, i + 1).then(knot), knot.then(self.knots(i + 1))


def at_rest(t_ns: int, position: Array) -> Trajectory:
    """One knot at rest: the whole motion is to stand at `position` [joints]."""
    states = np.zeros((2, 1, len(position)))
    states[0, 0] = position
    return Trajectory([t_ns], states)


def hermite_coefficients(
    p0: Array, p1: Array, v0: Array, v1: Array, h: Array | float
) -> tuple[Array, Array]:
    """Acceleration at the start and (constant) jerk of the cubic through both ends in h seconds."""
    mean = (p1 - p0) / h
    return (6.0 * mean - 4.0 * v0 - 2.0 * v1) / h, (6.0 * (v0 + v1) - 12.0 * mean) / (h * h)


@dataclass(frozen=True, eq=False)
class Hull:
    """What the Bézier control points of each segment say; float64 [segments, joints].

    The motion lies within lower and upper; its speed is at most the largest of the speeds at the
    ends and `inner_speed`. `acceleration` is exact. Cheap, and enough where it is within bounds.
    """

    lower: Array
    upper: Array
    inner_speed: Array
    acceleration: Array

    def segments(self, s: slice) -> Hull:
        """Return the hull of some of the segments (views, no copies)."""
        return Hull(self.lower[s], self.upper[s], self.inner_speed[s], self.acceleration[s])


def segment_hull(
    p0: Array, p1: Array, v0: Array, v1: Array, slope: Array, h: Array | float
) -> Hull:
    """Hull of cubics; p0..v1: [segments, joints]; slope: (p1 - p0) / h; h: [segments, 1], s."""
    third = h * (1.0 / 3.0)
    first, second = p0 + v0 * third, p1 - v1 * third
    lower, upper = np.minimum(first, second), np.maximum(first, second)
    for end in (p0, p1):
        np.minimum(lower, end, out=lower)
        np.maximum(upper, end, out=upper)
    inner = 3.0 * slope
    inner -= v0
    inner -= v1
    change, change_after = inner - v0, v1 - inner
    np.abs(change, out=change)
    np.maximum(change, np.abs(change_after, out=change_after), out=change)
    change *= 2.0 / h
    return Hull(lower, upper, np.abs(inner, out=inner), change)


CubicHull = tuple[float, float, float, float]
"""lower, upper, inner_speed and acceleration of one cubic, as in Hull."""


def cubic_hull(p0: float, p1: float, v0: float, v1: float, h: float) -> CubicHull:
    """Hull of one joint's cubic, the same to the bit as `segment_hull`."""
    third = h * (1.0 / 3.0)
    first, second = p0 + v0 * third, p1 - v1 * third
    inner = 3.0 * ((p1 - p0) / h) - v0 - v1
    return (min(first, second, p0, p1), max(first, second, p0, p1), abs(inner),
            max(abs(inner - v0), abs(v1 - inner)) * (2.0 / h))


@dataclass(frozen=True, eq=False)
class Extrema:
    """Extrema of each segment: float64 [segments, joints]."""

    lower: Array
    upper: Array
    speed: Array
    acceleration: Array


def segment_extrema(p0: Array, p1: Array, v0: Array, v1: Array, h: Array) -> Extrema:
    """Analytic extrema of cubics; p0..v1: [segments, joints], h: [segments, 1], seconds.

    Acceleration is linear: its extrema lie at the ends. Velocity is a parabola: ends and vertex.
    Position: ends and the roots of the velocity. Non-finite input gives non-finite extrema.
    """
    a0, jerk = hermite_coefficients(p0, p1, v0, v1, h)
    a1 = a0 + jerk * h
    acceleration = np.maximum(np.abs(a0), np.abs(a1))
    with np.errstate(all='ignore'):
        vertex = -a0 / jerk
        inside = (vertex > 0.0) & (vertex < h)
        at_vertex = np.where(inside, np.abs(v0 + 0.5 * a0 * vertex), 0.0)
        speed = np.maximum(np.maximum(np.abs(v0), np.abs(v1)), at_vertex)
        lower, upper = np.minimum(p0, p1), np.maximum(p0, p1)
        # Roots of v0 + a0 s + jerk s^2 / 2, in the form that does not cancel.
        w = -0.5 * (a0 + np.copysign(np.sqrt(a0 * a0 - 2.0 * jerk * v0), a0))
        for s in (2.0 * w / jerk, v0 / w):
            p = p0 + s * (v0 + s * (0.5 * a0 + s * jerk / 6.0))
            turns = (s > 0.0) & (s < h)
            lower = np.where(turns, np.minimum(lower, p), lower)
            upper = np.where(turns, np.maximum(upper, p), upper)
    bad = ~np.isfinite(acceleration)
    if bad.any():
        nan = np.where(bad, np.nan, 0.0)
        lower, upper = lower + nan, upper + nan
        speed, acceleration = speed + nan, acceleration + nan
    return Extrema(lower, upper, speed, acceleration)


def trajectory_extrema(trajectory: Trajectory) -> Extrema:
    """Extrema of every segment of a trajectory of two knots or more."""
    h = (np.diff(trajectory.times).astype(np.float64) * NS_TO_S)[:, None]
    p, v = trajectory.position, trajectory.velocity
    return segment_extrema(p[:-1], p[1:], v[:-1], v[1:], h)
