# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A commanded motion as a stream of positions or velocities, one a tick, without interpolation.

A controller of positions executes q' = q + v' dt at once. Ticks come late, so sampling the motion
is not enough: after an outage it would be a step. Each position is therefore limited again, from
the one sent before: the speed v' toward a room d is at most

    2 a d / (a dt + sqrt((a dt)^2 + 2 a d)),

from which braking by a per second stays inside d whatever the times of the ticks to come.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.trajectory import NS_TO_S, Trajectory

Array = NDArray[np.float64]


def room_speed(room: Array, a_max: Array, dt: float) -> Array:
    """Largest speed of a stream toward a room [joints] (negative counts as 0)."""
    d = np.maximum(room, 0.0)
    drop = a_max * dt
    return np.asarray(2.0 * a_max * d / (drop + np.sqrt(drop * drop + 2.0 * a_max * d)))


class Stream:
    """What a motion is sent as, one message a tick, until it has ended; joints as in the bounds."""

    def __init__(self, bounds: Bounds, period_s: float) -> None:
        self.bounds, self._period_s = bounds, period_s
        self._motion: Trajectory | None = None
        self._velocity: Array = np.zeros(len(bounds.lower))
        self._sent_ns: int | None = None

    @property
    def goes_on(self) -> bool:
        """Whether a motion has not been sent to its end."""
        return self._motion is not None

    def step(self, now_ns: int, motion: Trajectory | None) -> Array | None:
        """What to send now [joints], or None for silence.

        motion: what was commanded in this tick; None if nothing was: then the last motion is
        followed to its end, and after that nothing is sent. Where the clock was set back, a period
        has passed, and the last motion is followed from where it was.
        """
        if self._sent_ns is not None and now_ns < self._sent_ns:
            before_ns = now_ns - round(self._period_s * 1e9)
            if self._motion is not None:
                self._motion = self._motion.shifted(before_ns - self._sent_ns)
            self._sent_ns = before_ns
        if motion is not None:
            self._motion = motion
        if self._motion is None:
            return None
        dt = self._period_s
        if self._sent_ns is not None:
            dt = min((now_ns - self._sent_ns) * NS_TO_S, dt)
        if dt <= 0.0:
            return None
        sent = self._next(self._motion, now_ns, dt)
        self._sent_ns = now_ns
        # At rest is at the end, or as near to it as the bounds allow by now.
        if motion is None and now_ns >= self._motion.end_ns and not self._velocity.any():
            self._end()
        return sent

    def _end(self) -> None:
        self._motion = self._sent_ns = None

    def _next(self, motion: Trajectory, now_ns: int, dt: float) -> Array:
        """What to send dt seconds after the message before."""
        raise NotImplementedError


class PositionStream(Stream):
    """Positions, tick by tick, of whatever motion was commanded last."""

    _position: Array | None = None

    def _end(self) -> None:
        super()._end()
        self._position = None

    def _next(self, motion: Trajectory, now_ns: int, dt: float) -> Array:
        target, drift = motion.state(now_ns)
        if self._position is None:
            self._position, self._velocity = np.array(target), np.zeros_like(target)
        else:
            self._velocity = self.limited(self._position, self._velocity, target, drift, dt)
            self._position = self._position + self._velocity * dt
        return self._position

    def limited(
        self, q: Array, v: Array, target: Array, drift: Array, dt: float
    ) -> Array:
        """Velocity [joints] of the step after q that moves toward a target, itself at `drift`."""
        error = target - q - drift * dt
        desired = drift + np.copysign(
            room_speed(np.abs(error), self.bounds.acceleration, dt), error)
        return limited_velocity(self.bounds, q, v, desired, dt)


class VelocityStream(Stream):
    """Velocities, tick by tick, of whatever motion was commanded last; zeros while it stands."""

    def _next(self, motion: Trajectory, now_ns: int, dt: float) -> Array:
        position, desired = motion.state(now_ns)
        self._velocity = limited_velocity(self.bounds, position, self._velocity, desired, dt)
        return self._velocity


def limited_velocity(bounds: Bounds, q: Array, v: Array, desired: Array, dt: float) -> Array:
    """The velocity [joints] nearest to `desired` for a step of dt from q, after one at v."""
    a = bounds.acceleration
    highest = np.minimum(bounds.velocity, room_speed(bounds.upper - q, a, dt))
    lowest = -np.minimum(bounds.velocity, room_speed(q - bounds.lower, a, dt))
    after = np.clip(desired, lowest, highest)
    if bounds.envelope is not None:
        reached = q + after * dt
        after = np.clip(after, -bounds.envelope.downward(reached),
                        bounds.envelope.upward(reached))
    # Last: a start that is not viable brakes as hard as it may and no harder.
    return np.asarray(np.clip(after, v - a * dt, v + a * dt))
