# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Percentiles over a sliding window of durations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW = 1000


class DurationWindow:
    """The last WINDOW durations, in seconds."""

    def __init__(self) -> None:
        self._durations_s = np.empty(WINDOW)
        self._count = 0

    def add(self, duration_s: float) -> None:
        """Add one duration."""
        self._durations_s[self._count % WINDOW] = duration_s
        self._count += 1

    def percentiles(self, ranks: Sequence[float]) -> list[float]:
        """Return the percentiles of the given ranks (0..100) in seconds; 0 without data."""
        if not self._count:
            return [0.0] * len(ranks)
        known = self._durations_s[:min(self._count, WINDOW)]
        return [float(p) for p in np.percentile(known, ranks)]
