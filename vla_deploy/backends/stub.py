# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A backend that returns one value for every joint: for testing all that stands behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.pipeline.backend import BackendOptions, ModelInputs, require, require_single
from vla_deploy.pipeline.bundle import Bundle

Float32 = NDArray[np.float32]


class StubBackend:
    """Returns `value`, in robot units, in every element of every chunk. Reads no graph."""

    emits_robot_units = True

    def __init__(self, value: float) -> None:
        self._value = np.float32(value)

    def prefix(self, inputs: ModelInputs) -> None:
        """Take in an observation and learn nothing from it."""

    def step(
        self, prefix: Any, x: Float32, time_embedding: Float32, dt: np.float32, *continued: Any
    ) -> tuple[Float32, Float32]:
        """Return the value in the shape of x, and the velocity that leads there."""
        target = np.full_like(x, self._value)
        return target, (target - x) / dt


def load(bundle: Bundle, options: BackendOptions) -> StubBackend:
    """Return a stub for any bundle; raises PolicyError for options that it cannot fulfil."""
    require('provider', options.provider, ('cpu',), 'stub')
    require('precision', options.precision, ('fp32',), 'stub')
    require('variant', options.variant, ('split',), 'stub')
    require_single(options, 'stub')
    return StubBackend(options.stub_value)
