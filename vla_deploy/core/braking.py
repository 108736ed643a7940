# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Braking: each joint comes to rest by its own constant deceleration, on knots of a fixed grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import GRID_NS, GRID_S
from vla_deploy.core.trajectory import NS_TO_S, Trajectory

Array = NDArray[np.float64]


def brake(t_ns: int, position: Array, velocity: Array, deceleration: Array) -> Trajectory:
    """Trajectory from a state [joints] at t_ns to rest; its first knot is that state.

    Each joint brakes fully for all but its last grid step and uses up what is left in that one:
    the way is at most v^2 / (2a) + a * grid^2 / 8.
    """
    return slew_then_brake(t_ns, position, velocity, velocity, np.zeros_like(velocity),
                           deceleration)


def slew_then_brake(
    t_ns: int,
    position: Array,
    velocity: Array,
    velocity_after: Array,
    slew_s: Array,
    deceleration: Array,
) -> Trajectory:
    """Change velocity at a constant rate for slew_s [joints] (multiples of the grid), then brake.

    Cubic Hermite through the knots reproduces the motion, since each joint's acceleration is
    constant between them.
    """
    speed = np.abs(velocity_after)
    steps = np.ceil(speed / (deceleration * GRID_S) - 1e-9)
    steps = np.where((speed > 0.0) & (steps < 1.0), 1.0, steps)
    full_s = np.maximum(steps - 1.0, 0.0) * GRID_S
    slew_steps = np.rint(slew_s / GRID_S)
    grid = sorted(
        {0, *slew_steps.tolist(), *(slew_steps + steps).tolist(),
         *(slew_steps + np.maximum(steps - 1.0, 0.0)).tolist()}
    )
    knots = np.array(grid)
    after = knots[:, None] * GRID_S
    last_speed = np.maximum(speed - deceleration * full_s, 0.0)
    slewing = np.minimum(after, slew_s)
    rate = np.divide(velocity_after - velocity, slew_s, out=np.zeros_like(speed),
                     where=slew_s > 0.0)
    full = np.clip(after - slew_s, 0.0, full_s)
    last = np.clip(after - slew_s - full_s, 0.0, GRID_S)
    last_rate = last_speed / GRID_S
    sign = np.sign(velocity_after)
    way = slewing * (velocity + 0.5 * rate * slewing) + sign * (
        full * (speed - 0.5 * deceleration * full)
        + last * (last_speed - 0.5 * last_rate * last)
    )
    speed_then = speed - deceleration * full - last_rate * last
    ended = knots[:, None] >= slew_steps + steps
    velocities = np.where(ended, 0.0, sign * speed_then)
    velocities = np.where(after < slew_s, velocity + rate * slewing, velocities)
    positions = position + way
    positions[0], velocities[0] = position, velocity
    times = t_ns + knots.astype(np.int64) * GRID_NS
    return Trajectory(times, positions, velocities)


def braking_time_s(velocity: Array, deceleration: Array) -> float:
    """Longest time any joint needs to come to rest, the grid included."""
    return float(np.max(np.abs(velocity) / deceleration, initial=0.0)) + GRID_NS * NS_TO_S
