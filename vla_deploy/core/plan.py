# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk as motion: knots at its own period, cubic Hermite with central-difference velocities."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.trajectory import NS_TO_S, Hull, Trajectory

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plan:
    """A verified chunk. knots: its samples.

    hull: of each segment, if the plan is within every limit and may be executed as it is; None for
    a plan that is only a target for the limiter. Then pace is how fast the plan's clock may run in
    each segment (core/pace.py).
    """

    session_id: str
    seq: int
    knots: Trajectory
    hull: Hull | None
    pace: Sequence[float] = ()


@dataclass(frozen=True, eq=False)
class PlanGrid:
    """What the number of samples, their period and the number of joints alone decide.

    offsets: int64 [steps], ns from the first sample; each is rounded on its own, so errors do not
    add up. intervals: seconds between samples, one number where they are all equal, else
    [steps - 1, joints]. spans: seconds between neighbours of the inner samples [steps - 2, joints];
    first_s, last_s: between the two samples at either end. shortest_gap_s, shortest_span_s: the
    least interval and the least span; 1 where there is none.
    """

    offsets: NDArray[np.int64]
    intervals: Array | float
    spans: Array
    first_s: float
    last_s: float
    shortest_gap_s: float
    shortest_span_s: float

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of(period_s: float, steps: int, joints: int) -> PlanGrid:
        """Return the grid of >= 2 samples; it is made once and shared."""
        offsets = np.rint(np.arange(steps) * (period_s * 1e9)).astype(np.int64)
        seconds, gaps = offsets * NS_TO_S, np.diff(offsets)
        intervals: Array | float = float(gaps[0]) * NS_TO_S
        if (gaps != gaps[0]).any():
            intervals = _columns(gaps * NS_TO_S, joints)
        double = offsets[2:] - offsets[:-2]
        return PlanGrid(
            offsets,
            intervals,
            _columns(seconds[2:] - seconds[:-2], joints),
            float(seconds[1] - seconds[0]),
            float(seconds[-1] - seconds[-2]),
            NS_TO_S * float(gaps.min()),
            NS_TO_S * float(double.min()) if len(double) else 1.0,
        )


def _columns(values: Array, joints: int) -> Array:
    """The same values [rows] for every joint [rows, joints]; read-only, because it is shared."""
    table = np.repeat(values[:, None], joints, axis=1)
    table.setflags(write=False)
    return table


def interpolant(stamp_ns: int, period_s: float, positions: Array) -> Trajectory:
    """Knots with velocities by central differences, one-sided at both ends; >= 2 samples.

    positions: float64 [steps, joints], kept bit-identical; they begin at stamp_ns.
    """
    grid = PlanGrid.of(period_s, *positions.shape)
    states = np.empty((2, *positions.shape))
    states[0], velocities = positions, states[1]
    np.subtract(positions[2:], positions[:-2], out=velocities[1:-1])
    velocities[1:-1] /= grid.spans
    velocities[0] = (positions[1] - positions[0]) / grid.first_s
    velocities[-1] = (positions[-1] - positions[-2]) / grid.last_s
    return Trajectory((grid.offsets + stamp_ns).tolist(), states)
