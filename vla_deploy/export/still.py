# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Dimensions whose statistics say that they never moved in the training data.

The reference accepts them: it divides by its epsilon where a std or a range is 0. For an action
that means a constant, on purpose. For a state it means that the smallest deviation from the
recorded value becomes a huge number that no training has seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import ActionSpec, Contract, StateSpec

_RANGES = {'quantiles': ('q01', 'q99'), 'min_max': ('min', 'max')}


def still_states(contract: Contract, statistics: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Return one line for each state dimension with zero std or range, which --strict refuses."""
    epsilon = contract.state.normalization.epsilon
    return [
        f'{name}: it never moved in the training data, and any deviation is divided by {epsilon!r}'
        for name in _still('state', contract.state, statistics)
    ]


def still_actions(contract: Contract, statistics: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Return one line for each action dimension with zero std or range."""
    return [
        f'{name}: it never moved in the training data, and the policy keeps it constant'
        for name in _still('action', contract.action, statistics)
    ]


def _still(
    part: str, spec: StateSpec | ActionSpec, statistics: Mapping[str, NDArray[np.float32]]
) -> list[str]:
    mode = spec.normalization.mode
    if mode == 'identity':
        return []
    if mode == 'mean_std':
        what, spread = 'zero std', statistics[f'{part}.std']
    else:
        low, high = _RANGES[mode]
        what, spread = f'{low} equal to {high}', statistics[f'{part}.{high}'] - statistics[
            f'{part}.{low}'
        ]
    return [
        f'{part} dimension {index}{f" ({spec.joints[index]})" if spec.joints else ""} has {what}'
        for index in np.flatnonzero(spread == 0)
    ]
