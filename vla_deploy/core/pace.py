# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How fast the clock of a clamped plan may run, so that its path can be followed within limits.

Scaling time by r < 1 keeps the path; it scales velocity by r and acceleration by r^2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.trajectory import NS_TO_S, Trajectory

Array = NDArray[np.float64]

WINDOW_S = 0.1
"""Means over this time count: what is shorter (noise between samples) the limiter smooths."""
USE = 0.8
"""Part of velocity and acceleration limits that the scaled plan may use."""
RAMP = 0.2
"""Part of the acceleration limit that changes of the rate themselves may use."""
SLOWEST = 0.02


def pace(knots: Trajectory, bounds: Bounds) -> list[float]:
    """Rate of the plan's clock in each segment, SLOWEST..1, changing gently between them."""
    times, p, v = knots.times, knots.position, knots.velocity
    segments = len(times) - 1
    period_s = float(times[-1] - times[0]) * NS_TO_S / segments
    window = min(segments, max(1, round(WINDOW_S / period_s)))
    span = window * period_s
    speed = np.abs(p[window:] - p[:-window]) / span
    acceleration = np.abs(v[window:] - v[:-window]) / span
    ratio = np.maximum(speed / bounds.velocity, np.sqrt(
        acceleration * (USE / bounds.acceleration))).max(axis=1) / USE
    rates = np.clip(1.0 / np.maximum(ratio, 1.0), SLOWEST, 1.0)
    # The window that begins at a knot counts for all of its segments.
    every = np.ones(segments)
    for i in range(window):
        np.minimum(every[i:i + len(rates)], rates, out=every[i:i + len(rates)])
    fastest = np.maximum(speed.max(axis=0), 1e-9)
    step = RAMP * float((bounds.acceleration / fastest).min()) * period_s
    return _gentle(every.tolist(), step)


def _gentle(rates: list[float], step: float) -> list[float]:
    """Lower rates so that no two neighbours differ by more than step."""
    for i in range(1, len(rates)):
        rates[i] = min(rates[i], rates[i - 1] + step)
    for i in range(len(rates) - 2, -1, -1):
        rates[i] = min(rates[i], rates[i + 1] + step)
    return rates
