# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking: a new chunk is drawn toward what is left of the previous one.

The velocity v at time t is corrected by the error of the chunk that it leads to: with
x1 = x − t·v, v' = v − g·w·(previous − x1). The weight g grows as t falls, up to a bound; w is 1
for the samples that will have been executed when the chunk is ready, falls to 0 at the horizon,
and is 0 behind it. Source: Black et al., "Real-time execution of action chunking flow policies"
(2025), with the identity as Jacobian, as LeRobot 0.6.1 computes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
SCHEDULES = ('linear', 'exp', 'ones', 'zeros')


@dataclass(frozen=True, eq=False)
class Guidance:
    """What a chunk is drawn toward.

    previous: the left-over of the previous chunk in model space, float32 [1..steps, 1..padded_dim],
    its first row the first that has not been consumed; dims that it lacks count as 0, as a padded
    dim is. delay_steps: samples that will be consumed before the new chunk is ready.
    horizon_steps: samples that are drawn at all; no more than `previous` has. schedule: how the
    weight falls between the two, one of SCHEDULES; 'ones' does not fall, 'zeros' falls at the
    delay. max_weight: bound of the guidance.
    """

    previous: Float32
    delay_steps: int
    horizon_steps: int
    schedule: str
    max_weight: float

    def __post_init__(self) -> None:
        """Raise ValueError, which names the field that cannot be right."""
        previous = self.previous
        if previous.dtype != np.float32 or previous.ndim != 2 or previous.size == 0:
            raise ValueError(
                'guidance: previous must be float32 [rows, dims], '
                f'not {previous.dtype} {list(previous.shape)}'
            )
        if not np.isfinite(previous).all():
            raise ValueError('guidance: previous holds a value that is not finite')
        for name in ('delay_steps', 'horizon_steps'):
            if getattr(self, name) < 0:
                raise ValueError(f'guidance: {name} is {getattr(self, name)}, but must be >= 0')
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f'guidance: schedule is {self.schedule!r}, not one of {", ".join(SCHEDULES)}'
            )
        if not 0 <= self.max_weight < float('inf'):
            raise ValueError(f'guidance: max_weight is {self.max_weight!r}, but must be >= 0')


class GuidedVelocity:
    """Corrects velocities of one chunk."""

    def __init__(self, guidance: Guidance, shape: tuple[int, int]) -> None:
        """Take the chunk's shape [steps, padded_dim]; raises ValueError where `previous` has
        more rows or dims than that."""
        rows, dims = guidance.previous.shape
        if rows > shape[0] or dims > shape[1]:
            raise ValueError(
                f'guidance: previous is {[rows, dims]}, more than the chunk {list(shape)}'
            )
        self._target = np.zeros(shape, np.float32)
        self._target[:rows, :dims] = guidance.previous
        self._weights = prefix_weights(
            guidance.delay_steps,
            min(guidance.horizon_steps, rows),
            shape[0],
            guidance.schedule,
        )[:, np.newaxis]
        self._max_weight = np.float32(guidance.max_weight)

    def __call__(self, x: Float32, velocity: Float32, time: np.float32) -> Float32:
        """Return the corrected velocity, float32 [steps, padded_dim], at x and time in (0, 1]."""
        reached = x - time * velocity
        error = (self._target - reached) * self._weights
        return velocity - guidance_weight(time, self._max_weight) * error


def continuation_inputs(
    guidance: Guidance | None, shape: tuple[int, int]
) -> tuple[Float32, NDArray[np.int64]]:
    """Return what a policy that was trained to continue a chunk takes: `prev_chunk` float32
    [steps, padded_dim] with zeros where nothing is known, and `delay` int64 [], the samples of it
    that are certain; without guidance 0. Raises ValueError where `previous` has more rows or dims.
    """
    previous, delay = np.zeros(shape, np.float32), 0
    if guidance is not None:
        rows, dims = guidance.previous.shape
        if rows > shape[0] or dims > shape[1]:
            raise ValueError(
                f'guidance: previous is {[rows, dims]}, more than the chunk {list(shape)}'
            )
        previous[:rows, :dims] = guidance.previous
        delay = min(guidance.delay_steps, rows)
    return previous, np.asarray(delay, np.int64)


def guidance_weight(time: np.float32, max_weight: np.float32) -> np.float32:
    """Return min(t/τ · (t² + τ²)/t², max_weight) with τ = 1 − t; the bound where τ is 0."""
    tau = np.float32(1.0) - time
    if tau <= 0:
        return max_weight
    inverse_r2 = (time * time + tau * tau) / (time * time)
    return np.float32(min(time / tau * inverse_r2, max_weight))


def prefix_weights(delay: int, horizon: int, steps: int, schedule: str) -> Float32:
    """Return the weight of each sample, float32 [steps]: 1 up to `delay`, 0 from `horizon`."""
    delay = min(delay, horizon)
    index = np.arange(steps)
    if schedule == 'zeros':
        return (index < delay).astype(np.float32)
    if schedule == 'ones':
        return (index < horizon).astype(np.float32)
    between = max(min(horizon, steps) - delay, 0)
    falling = np.linspace(1.0, 0.0, between + 2)[1:-1].astype(np.float32)
    if schedule == 'exp':
        falling = falling * np.expm1(falling) / np.float32(np.e - 1.0)
    weights = np.zeros(steps, np.float32)
    weights[:delay] = 1.0
    weights[delay : delay + between] = falling
    return weights
