# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""From noise to actions: Euler steps along the velocity that the policy predicts.

Time runs from 1 (noise) to 0 (actions). This is the only sampler; a backend supplies one step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import TimeEmbedding

Float32 = NDArray[np.float32]
# (x, time embedding, dt) -> (x + dt · velocity, velocity)
StepFunction = Callable[[Float32, Float32, np.float32], tuple[Float32, Float32]]


def philox_noise(seed: int, shape: tuple[int, ...]) -> Float32:
    """Return standard normal noise, float32, that `seed` alone decides."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.standard_normal(shape, dtype=np.float32)


def time_embeddings(spec: TimeEmbedding, steps: int) -> Float32:
    """Return the embeddings of the times 1, 1 − 1/steps, …, 1/steps, float32 [steps, dim].

    Sines, then cosines, of 2π · time / period, with periods in geometric progression. Times are
    rounded to float32 first, as a policy gets them; all else is float64 and rounded at the end.
    """
    times = np.array([1.0 + i * (-1.0 / steps) for i in range(steps)], np.float32)
    fraction = np.linspace(0.0, 1.0, spec.dim // 2)
    period = spec.min_period * (spec.max_period / spec.min_period) ** fraction
    angle = times.astype(np.float64)[:, np.newaxis] * (1.0 / period * 2.0 * np.pi)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


class EulerSampler:
    """Takes `steps` equal steps from noise at time 1 to actions at time 0."""

    def __init__(self, spec: TimeEmbedding, steps: int) -> None:
        self._embeddings = time_embeddings(spec, steps)
        self._dt = np.float32(-1.0 / steps)

    def __call__(self, step: StepFunction, noise: Float32) -> Float32:
        """Return the sample that `noise` flows to, float32 of the same shape."""
        x = noise
        for embedding in self._embeddings:
            x, _ = step(x, embedding, self._dt)
        return x
