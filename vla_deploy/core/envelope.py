# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Speed limits that fall toward the ends of a joint's range, as FR3 publishes them.

Published: v <= -c + sqrt(k d), d the room to q_upper (mirrored toward q_lower). Where following
that curve would need more than the joint's deceleration a, a state on it is lost: the largest
speed from which full braking stays below the curve is smaller. Along the curve the deceleration is
k/2 (1 - c / sqrt(k d)), which grows with d. So, if k > 2a, there is one knee, where it equals a;
nearer to the end the published curve is itself viable, farther away the largest viable speed is
that of full braking down to the knee: v^2 = v_knee^2 + 2a (d - d_knee).

In v^2 over d this whole curve is convex and nowhere steeper than 2a. Hence full braking from below
it stays below it, and a step of constant acceleration is a straight line.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.limits import JointLimits, VelocityEnvelope
from vla_deploy.core.trajectory import Hull

Array = NDArray[np.float64]

NOWHERE = 1e18
"""End of the range [rad] of joints without a curve."""
PARTS = 8
"""Parts into which a doubtful cubic is cut to judge it."""
ON_CURVE = 1e-9
"""Part of a speed by which rounding may carry a state above the curve it follows."""


@dataclass(frozen=True)
class SpeedCurve:
    """Largest viable speed of one joint as a function of the room to the end of its range."""

    k: float
    c: float
    q_lower: float
    q_upper: float
    acceleration: float
    knee_speed: float
    knee_room: float
    level: float = math.inf
    """Beyond the knee v^2 = level + 2a * room; infinite without one."""

    @staticmethod
    def of(published: VelocityEnvelope, acceleration: float, allowance: float) -> SpeedCurve:
        """The curve for a deceleration, its ends moved inward by `allowance` [rad or m]."""
        k, c = published.k, published.c
        knee_speed = knee_room = level = math.inf
        if k > 2.0 * acceleration:
            root = c / (1.0 - 2.0 * acceleration / k)
            knee_speed, knee_room = root - c, root * root / k
            level = knee_speed * knee_speed - 2.0 * acceleration * knee_room
        return SpeedCurve(k, c, published.q_lower + allowance, published.q_upper - allowance,
                          acceleration, knee_speed, knee_room, level)

    def clearly_below(self, speed: float, lowest: float, highest: float) -> bool:
        """Whether a joint that is never faster than `speed` between two positions is below.

        Cheap, and sufficient only: beyond doubt if true. The same as SpeedEnvelope.clearly_below.
        """
        room = min(self.q_upper - highest, lowest - self.q_lower)
        raised = speed + self.c
        return (raised * raised <= self.k * room
                and speed * speed <= room * (2.0 * self.acceleration) + self.level)

    def clear_room(self, v_max: float, dt: float) -> float:
        """Room from which on `step_bound` is v_max whatever the speed; infinite if nowhere."""
        if self.knee_speed < v_max:
            return math.inf
        return ((v_max + self.c) ** 2 / self.k + v_max * dt) * (1.0 + ON_CURVE)

    def step_bound(self, room: float, v: float, v_max: float, dt: float) -> float:
        """Largest v' with which a step of constant acceleration stays below the curve.

        room: to the end of the range; v, v': toward it. Negative if there is no v' >= 0. The end
        of the step must lie below, and, slowing down, so must the straight line (in v^2 over d)
        from its start: no flatter than the tangent from there, if that touches within the step.
        """
        k, c = self.k, self.c
        if k * (room - v_max * dt) >= (v_max + c) ** 2 and self.knee_speed >= v_max:
            return v_max
        spare = room - 0.5 * v * dt
        half = c + 0.25 * k * dt
        square = half * half - c * c + k * spare
        after = math.sqrt(square) - half if square > 0.0 else -half
        if after > self.knee_speed:
            a = self.acceleration
            spare += 0.5 * self.knee_speed**2 / a - self.knee_room
            half = 0.5 * a * dt
            return math.sqrt(half * half + 2.0 * a * spare) - half
        if after >= v or after < 0.0 or c == 0.0:
            return after
        if v > (math.sqrt(k * room) - c) * (1.0 + ON_CURVE):
            return -math.inf
        b = c * c + k * room - v * v
        square = b * b - 4.0 * c * c * k * room
        slope = c * math.sqrt(k)
        touch = 2.0 * slope * room / (b + math.sqrt(max(square, 0.0)))
        if touch * touch <= room - 0.5 * (v + after) * dt:
            return after
        return v - 0.5 * dt * (k - slope / touch)


class SpeedEnvelope:
    """The curves of all joints; arrays float64 [joints]."""

    def __init__(self, curves: tuple[SpeedCurve | None, ...]) -> None:
        self.curves = curves
        none = SpeedCurve(1.0, 0.0, -NOWHERE, NOWHERE, 1.0, math.inf, math.inf)
        filled = [curve or none for curve in curves]
        self._k = np.array([curve.k for curve in filled])
        self._c = np.array([curve.c for curve in filled])
        self._q_lower = np.array([curve.q_lower for curve in filled])
        self._q_upper = np.array([curve.q_upper for curve in filled])
        self._a = np.array([curve.acceleration for curve in filled])
        knee_speed = np.array([curve.knee_speed for curve in filled])
        knee_room = np.array([curve.knee_room for curve in filled])
        self.lower = self._q_lower + self._c * self._c / self._k
        """Position at which the speed toward q_lower has fallen to 0."""
        self.upper = self._q_upper - self._c * self._c / self._k
        self._ends = np.array([self._q_lower, self._q_upper])
        self._speeds = np.array([self._k, self._c, knee_room, knee_speed**2,
                                 2.0 * self._a])
        level = np.array([curve.level for curve in filled])
        self.coarse = np.array([self._q_lower, self._q_upper, self._c, self._k, level,
                                 2.0 * self._a])
        """[6, joints]: q_lower, q_upper, c, k, level and 2a, as `clearly_below` needs them."""

    @staticmethod
    def of(limits: JointLimits, acceleration: Array, allowance: Array) -> SpeedEnvelope | None:
        """Curves of the joints that have one; None if no joint has."""
        curves = tuple(
            None if joint.envelope is None else SpeedCurve.of(joint.envelope, a, extra)
            for joint, a, extra in zip(limits.joints, acceleration.tolist(), allowance.tolist(),
                                       strict=True)
        )
        return SpeedEnvelope(curves) if any(curves) else None

    def upward(self, position: Array) -> Array:
        """Largest viable speed [..., joints] toward q_upper from a position."""
        return _speed(self._q_upper - position, self._speeds)

    def downward(self, position: Array) -> Array:
        """Largest viable speed toward q_lower, as `upward`."""
        return _speed(position - self._q_lower, self._speeds)

    def clearly_below(self, speed: Array, lowest: Array, highest: Array) -> NDArray[np.bool_]:
        """Which [segments, joints], never faster than `speed` between two positions, are below.

        Cheap, and sufficient only: beyond doubt where true.
        """
        q_lower, q_upper, c, k, level, twice_a = _tables(self, len(speed))
        room = q_upper - highest
        np.minimum(room, lowest - q_lower, out=room)
        raised = speed + c
        raised *= raised
        below = raised <= k * room
        room *= twice_a
        room += level
        below &= speed * speed <= room
        return np.asarray(below)

    def allows(
        self, p0: Array, p1: Array, v0: Array, v1: Array, h: Array | float, hull: Hull
    ) -> bool:
        """Whether every cubic stays below the curve; arguments as of `judge`."""
        fastest = np.maximum(np.maximum(np.abs(v0), np.abs(v1)), hull.inner_speed)
        if 0 not in self.clearly_below(fastest, hull.lower, hull.upper).tobytes():
            return True
        speed, limit = self.judge(p0, p1, v0, v1, h, hull)
        return bool((speed <= limit).all())

    def judge(
        self, p0: Array, p1: Array, v0: Array, v1: Array, h: Array | float, hull: Hull,
        skip: NDArray[np.bool_] | None = None,
    ) -> tuple[Array, Array]:
        """Speed and its limit [segments, joints] where each cubic comes nearest to the curve.

        p0..v1: [segments, joints], h: [segments, 1] or one number, in seconds; skip: joints
        [joints] that need no judgement. Never too lenient: what the hull does not show to be below
        is judged in parts, each by its highest speed at its outermost position. Speed is 0 and the
        limit infinite where there is no doubt.
        """
        fastest = np.maximum(np.maximum(np.abs(v0), np.abs(v1)), hull.inner_speed)
        below = self.clearly_below(fastest, hull.lower, hull.upper)
        speed, limit = np.zeros_like(p1), np.full_like(p1, np.inf)
        if skip is not None:
            below |= skip
        if 0 in below.tobytes():
            at = np.flatnonzero(~below)
            h = np.broadcast_to(h, p1.shape).take(at)
            speeds, limits = self._in_parts(
                p0.take(at), p1.take(at), v0.take(at), v1.take(at), h, at % p1.shape[1])
            speed.put(at, speeds)
            limit.put(at, limits)
        return speed, limit

    def _in_parts(
        self, p0: Array, p1: Array, v0: Array, v1: Array, h: Array, joints: NDArray[np.intp]
    ) -> tuple[Array, Array]:
        """Speed and limit [cubics], each cubic of the joint given for it."""
        mean = (p1 - p0) / h
        a0, jerk = (6.0 * mean - 4.0 * v0 - 2.0 * v1) / h, 6.0 * (v0 + v1 - 2.0 * mean) / (h * h)
        part = h / PARTS
        s = part * np.arange(PARTS + 1)[:, None]
        p = p0 + s * (v0 + s * (0.5 * a0 + s * jerk / 6.0))
        v = v0 + s * (a0 + 0.5 * s * jerk)
        bulge = 0.125 * part * part
        swing = bulge * np.maximum(np.abs(a0), np.abs(a0 + jerk * h))
        extra = bulge * np.abs(jerk)
        # Toward the upper end first, then toward the lower one.
        speeds, rooms = np.empty((2 * PARTS, len(h))), np.empty((2 * PARTS, len(h)))
        np.add(np.maximum(v[1:], v[:-1]), extra, out=speeds[:PARTS])
        np.subtract(extra, np.minimum(v[1:], v[:-1]), out=speeds[PARTS:])
        np.maximum(speeds, 0.0, out=speeds)
        lower, upper = self._ends[:, joints]
        np.subtract(upper, np.maximum(p[1:], p[:-1]) + swing, out=rooms[:PARTS])
        np.subtract(np.minimum(p[1:], p[:-1]) - swing, lower, out=rooms[PARTS:])
        limits = _speed(rooms, self._speeds[:, joints])
        worst = (speeds - limits).argmax(axis=0)
        every = np.arange(len(joints))
        return speeds[worst, every], limits[worst, every]


def _speed(room: Array, figures: Array) -> Array:
    """Largest viable speed toward an end at a room [..., joints]; figures: [5, joints]."""
    k, c, knee_room, knee_square, twice_a = figures
    room = np.maximum(room, 0.0)
    near = np.sqrt(k * room)
    near -= c
    room -= knee_room
    np.maximum(room, 0.0, out=room)
    room *= twice_a
    room += knee_square
    np.minimum(near, np.sqrt(room, out=room), out=near)
    np.maximum(near, 0.0, out=near)
    return np.asarray(near)


@functools.lru_cache(maxsize=64)
def _tables(envelope: SpeedEnvelope, segments: int) -> Array:
    """Figures for every segment [6, segments, joints]: stretching them each time is slow."""
    return np.repeat(envelope.coarse[:, None], segments, axis=1)
