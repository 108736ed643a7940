# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Braking: each joint comes to rest by its own constant deceleration, on knots of a fixed grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import GRID_NS, GRID_S
from vla_deploy.core.trajectory import Trajectory

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
    slew_steps: Array,
    deceleration: Array,
) -> Trajectory:
    """Change velocity at a constant rate for slew_steps [joints] of the grid, then brake.

    Cubic Hermite through the knots reproduces the motion, since each joint's acceleration is
    constant between them.
    """
    speed, drop, slews = np.abs(velocity_after), deceleration * GRID_S, slew_steps.tolist()
    ends, grid = [], {0.0}
    for v, dv, slew in zip(speed.tolist(), drop.tolist(), slews, strict=True):
        # 1e-9: a speed of a whole number of steps, but for rounding, takes that number.
        steps = max(math.ceil(v / dv - 1e-9), 1) if v > 0.0 else 0
        ends.append(slew + steps)
        grid.update((slew, max(slew + steps - 1.0, slew), slew + steps))
    knots = np.array(sorted(grid))
    column = knots[:, None]
    velocities = drop * (column - slew_steps if any(slews) else column)
    np.subtract(speed, velocities, out=velocities)
    velocities *= np.sign(velocity_after)
    np.copyto(velocities, 0.0, where=column >= np.array(ends))
    if len(knots) > 1 and knots[1] < max(slews):
        rate = (velocity_after - velocity) / np.maximum(slew_steps, 1.0)
        np.copyto(velocities, velocity + rate * column, where=column < slew_steps)
    velocities[0] = velocity
    # Constant acceleration between knots: the way is the mean velocity times the time.
    half_gaps = knots[1:] - knots[:-1]
    half_gaps *= 0.5 * GRID_S
    positions = np.empty_like(velocities)
    positions[0] = position
    ways = positions[1:]
    np.add(velocities[1:], velocities[:-1], out=ways)
    ways *= half_gaps[:, None]
    np.add.accumulate(positions, axis=0, out=positions)
    times = knots.astype(np.int64)
    times *= GRID_NS
    times += t_ns
    return Trajectory(times, positions, velocities)
