# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Chunks on the grid of their successor: what is left of one, and the mean of several.

The mean is that of Zhao et al., "Learning fine-grained bimanual manipulation with low-cost
hardware" (2023): the i-th prediction of a sample, the oldest first, has the weight exp(−m·i).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def resampled(rows: Float64, begin: float) -> Float64:
    """Return the rows [steps, dims] at begin, begin + 1, … as far as there are any.

    Between two rows lies the straight line through them; before the first, the first.
    """
    count = max(0, int(np.floor(len(rows) - 1 - begin + 1e-9)) + 1)
    index = np.clip(begin + np.arange(count), 0.0, len(rows) - 1.0)
    lower = np.minimum(np.floor(index + 1e-9).astype(np.intp), len(rows) - 1)
    part = np.maximum(index - lower, 0.0)[:, np.newaxis]
    upper = np.minimum(lower + 1, len(rows) - 1)
    result: Float64 = rows[lower] + part * (rows[upper] - rows[lower])
    return result


class Ensemble:
    """The running mean of the chunks of one session, sample by sample.

    `mean`: float64 [steps, dims]; `count`: int [steps], predictions that each sample is made of.
    """

    def __init__(self, actions: Float64) -> None:
        self.mean = actions
        self.count = np.ones(len(actions), np.intp)

    def add(self, actions: Float64, begin: float, decay: float) -> Ensemble:
        """Return the ensemble with a further chunk [steps, dims] whose sample 0 lies at `begin`,
        counted in samples of this one."""
        old = resampled(self.mean, begin)[: len(actions)]
        result = Ensemble(actions.copy())
        n = len(old)
        if n == 0:
            return result
        first = np.clip(np.floor(begin + np.arange(n) + 1e-9), 0, len(self.count) - 1)
        count = self.count[first.astype(np.intp)]
        weights = np.exp(-decay * np.arange(int(count.max()) + 1))
        total = np.cumsum(weights)
        before, newest = total[count - 1][:, np.newaxis], weights[count][:, np.newaxis]
        result.mean[:n] = (old * before + actions[:n] * newest) / (before + newest)
        result.count[:n] = count + 1
        return result
