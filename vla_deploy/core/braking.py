# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Braking: each joint comes to rest by its own constant deceleration, on knots of a fixed grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vla_deploy.core.bounds import GRID_NS, GRID_S
from vla_deploy.core.trajectory import Trajectory


def brake(
    t_ns: int, position: Sequence[float], velocity: Sequence[float], deceleration: Sequence[float]
) -> Trajectory:
    """Trajectory from a state [joints] at t_ns to rest; its first knot is that state.

    Each joint brakes fully for all but its last grid step and uses up what is left in that one:
    the way is at most v^2 / (2a) + a * grid^2 / 8.
    """
    return slew_then_brake(t_ns, position, velocity, velocity, [0] * len(velocity), deceleration)


def slew_then_brake(
    t_ns: int,
    position: Sequence[float],
    velocity: Sequence[float],
    velocity_after: Sequence[float],
    slew_steps: Sequence[int],
    deceleration: Sequence[float],
) -> Trajectory:
    """Change velocity at a constant rate for slew_steps [joints] of the grid, then brake.

    The velocity behind the slew is velocity_after but for rounding, and exactly 0 from a joint's
    own end on. Plain floats in, since this is called in every tick. Cubic Hermite through the knots
    reproduces the motion, since each joint's acceleration is constant between them.
    """
    reaches, drops, grid = [], [], {0}
    for v, a, slew in zip(velocity_after, deceleration, slew_steps, strict=True):
        drop, steps = a * GRID_S, 0.0
        if v != 0.0:
            steps = abs(v) / drop
            # 1e-9: a speed of a whole number of steps, but for rounding, takes that number.
            whole = math.ceil(steps - 1e-9) or 1
            if steps > whole:
                steps = whole
            grid.add(slew + whole - 1)
            grid.add(slew + whole)
        grid.add(slew)
        reaches.append(slew + steps)  # where full braking would end, were there no grid
        drops.append(drop if v >= 0.0 else -drop)
    knots = sorted(grid)
    # Few operations, since each costs the same whether of one number or a hundred.
    column = np.array(knots, np.float64)[:, None]
    reach, lost = np.array((reaches, drops))
    states = np.empty((2, len(knots), len(drops)))
    positions, velocities = states
    np.subtract(reach, column, out=velocities)
    np.maximum(velocities, 0.0, out=velocities)
    velocities *= lost
    longest = max(slew_steps)
    if len(knots) > 1 and knots[1] < longest:
        slews = np.array(slew_steps)
        rate = (np.array(velocity_after) - velocity) / np.maximum(slews, 1)
        np.copyto(velocities, velocity + rate * column, where=column < slews)
    velocities[-1] = 0.0
    states[:, 0] = position, velocity
    # Constant acceleration between knots: the way is the mean velocity times the time.
    ways = positions[1:]
    np.add(velocities[1:], velocities[:-1], out=ways)
    ways *= (column[1:] - column[:-1]) * (0.5 * GRID_S)
    np.add.accumulate(positions, axis=0, out=positions)
    return Trajectory([t_ns + knot * GRID_NS for knot in knots], states)
