# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Percentiles over a sliding window of durations."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

WINDOW = 1000


class DurationWindow:
    """The last WINDOW durations, in seconds."""

    def __init__(self) -> None:
        self._durations_s: deque[float] = deque(maxlen=WINDOW)

    def add(self, duration_s: float) -> None:
        """Add one duration."""
        self._durations_s.append(duration_s)

    def percentiles(self, ranks: Sequence[float]) -> list[float]:
        """Return the percentiles of the given ranks (0..100) in seconds; 0 without data."""
        if not self._durations_s:
            return [0.0] * len(ranks)
        return [float(p) for p in np.percentile(np.array(self._durations_s), ranks)]
