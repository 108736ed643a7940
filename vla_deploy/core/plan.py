# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk as motion: knots at its own period, cubic Hermite with central-difference velocities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.trajectory import NS_TO_S, Hull, Trajectory

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plan:
    """A verified chunk. knots: its samples.

    hull: of each segment, if the plan is within every limit and may be executed as it is; None for
    a plan that is only a target for the limiter.
    pace: for such a plan, the rate at which its clock may run in each segment; else empty.
    """

    session_id: str
    seq: int
    knots: Trajectory
    hull: Hull | None
    pace: tuple[float, ...] = ()


def knot_times(stamp_ns: int, period_s: float, steps: int) -> NDArray[np.int64]:
    """Times [steps] of the samples in ns; each is rounded on its own, so errors do not add up."""
    offsets = np.rint(np.arange(steps) * (period_s * 1e9)).astype(np.int64)
    return np.asarray(offsets + stamp_ns, np.int64)


def interpolant(times: NDArray[np.int64], positions: Array) -> Trajectory:
    """Knots with velocities by central differences, one-sided at both ends; >= 2 samples.

    positions: float64 [steps, joints], kept bit-identical.
    """
    seconds = ((times - times[0]) * NS_TO_S)[:, None]
    velocities = np.empty_like(positions)
    velocities[1:-1] = (positions[2:] - positions[:-2]) / (seconds[2:] - seconds[:-2])
    velocities[0] = (positions[1] - positions[0]) / (seconds[1] - seconds[0])
    velocities[-1] = (positions[-1] - positions[-2]) / (seconds[-1] - seconds[-2])
    return Trajectory(times, positions, velocities)
