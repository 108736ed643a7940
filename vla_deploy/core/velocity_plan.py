# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk of velocities as motion: linear between its samples, integrated from where it begins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.trajectory import NS_TO_S, Trajectory

Array = NDArray[np.float64]


def integrated(
    times: NDArray[np.int64], velocities: Array, position: Array, at_ns: int
) -> Trajectory:
    """Knots with the velocities [steps, joints] given, kept bit-identical; >= 2 samples.

    Velocity is linear between knots, so that each cubic has constant acceleration. The motion is at
    `position` [joints] at at_ns (or at its end that is nearer to at_ns).
    """
    seconds = ((times[1:] - times[:-1]) * NS_TO_S)[:, None]
    way = np.zeros_like(velocities)
    np.cumsum((velocities[1:] + velocities[:-1]) * (0.5 * seconds), axis=0, out=way[1:])
    motion = Trajectory.of(times, way, velocities)
    anchor = motion.state(min(max(at_ns, motion.start_ns), motion.end_ns))[0]
    return motion.moved(position - anchor)


def slowed(velocities: Array, limit: Array) -> Array:
    """Samples [steps, joints] within the velocity limit: each is scaled whole, so it keeps its
    direction."""
    excess = (np.abs(velocities) / limit).max(axis=1, keepdims=True)
    return np.asarray(velocities / np.maximum(excess, 1.0))
