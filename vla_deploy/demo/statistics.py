# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Success rates with intervals, and percentiles of durations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a success rate, as parts of 1 (Wilson 1927, equation 3).

    Without trials nothing is known: (0, 1). The ends are exact where none or all succeeded.
    """
    if trials == 0:
        return 0.0, 1.0
    rate, z2 = successes / trials, _Z_95**2
    centre = rate + z2 / (2 * trials)
    half = _Z_95 * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    scale = 1 + z2 / trials
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == trials else (centre + half) / scale
    return low, high


def percentiles_ms(durations_s: Sequence[float]) -> dict[str, float]:
    """Return p50, p95, p99 and max in milliseconds; empty without data."""
    if not durations_s:
        return {}
    p50, p95, p99, largest = np.percentile(np.asarray(durations_s) * 1e3, (50, 95, 99, 100))
    return {'p50': float(p50), 'p95': float(p95), 'p99': float(p99), 'max': float(largest)}
