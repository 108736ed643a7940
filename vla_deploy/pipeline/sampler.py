# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""From noise to actions: Euler steps along the velocity that the policy predicts.

Time runs from 1 (noise) to 0 (actions). This is the only sampler; a backend supplies one step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter as _now_s
from time import sleep as _sleep

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import TimeEmbedding
from vla_deploy.pipeline.guidance import Guidance, GuidedVelocity

Float32 = NDArray[np.float32]
# (x, time embedding, dt) -> (x + dt · velocity, velocity)
StepFunction = Callable[[Float32, Float32, np.float32], tuple[Float32, Float32]]


def philox_noise(seed: int, shape: tuple[int, ...]) -> Float32:
    """Return standard normal noise, float32, that `seed` alone decides."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.standard_normal(shape, dtype=np.float32)


def euler_times(steps: int) -> Float32:
    """Return the times 1, 1 − 1/steps, …, 1/steps, float32 [steps]."""
    return np.array([1.0 + i * (-1.0 / steps) for i in range(steps)], np.float32)


def time_embeddings(spec: TimeEmbedding, steps: int) -> Float32:
    """Return the embeddings of the times 1, 1 − 1/steps, …, 1/steps, float32 [steps, dim].

    Sines, then cosines, of 2π · time / period, with periods in geometric progression. Times are
    rounded to float32 first, as a policy gets them; all else is float64 and rounded at the end.
    """
    times = euler_times(steps)
    fraction = np.linspace(0.0, 1.0, spec.dim // 2)
    period = spec.min_period * (spec.max_period / spec.min_period) ** fraction
    angle = times.astype(np.float64)[:, np.newaxis] * (1.0 / period * 2.0 * np.pi)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


class DeadlineError(RuntimeError):
    """A chunk would have come too late, and was given up."""


@dataclass(frozen=True)
class Haste:
    """What may cut sampling short.

    deadline_s: time of `time.perf_counter` by which the last step must have ended; None: none.
    adaptive_tolerance: largest change of the velocity between two steps, in model space, at which
    the rest of the way is taken in one step; 0: all steps are taken. injected_latency_s: time that
    is added, spread over the steps.
    """

    deadline_s: float | None = None
    adaptive_tolerance: float = 0.0
    injected_latency_s: float = 0.0

    @property
    def needs_steps(self) -> bool:
        """Whether the steps must be taken one by one."""
        return self.deadline_s is not None or self.adaptive_tolerance > 0.0


NO_HASTE = Haste()


class EulerSampler:
    """Takes `steps` equal steps from noise at time 1 to actions at time 0."""

    def __init__(self, spec: TimeEmbedding, steps: int) -> None:
        self._times = euler_times(steps)
        self._embeddings = time_embeddings(spec, steps)
        self._dt = np.float32(-1.0 / steps)

    def __call__(
        self,
        step: StepFunction,
        noise: Float32,
        guidance: Guidance | None = None,
        haste: Haste = NO_HASTE,
    ) -> tuple[Float32, int]:
        """Return the sample that `noise` flows to, float32 of the same shape, and how many steps
        were taken.

        With `guidance` each velocity is corrected before the step is taken. Raises ValueError
        where it does not fit the shape, and DeadlineError before a step that would end too late.
        """
        guide = None if guidance is None else GuidedVelocity(guidance, noise.shape)
        pause_s = haste.injected_latency_s / len(self._times)
        x, last_velocity, longest_s = noise, None, 0.0
        for taken, (time, embedding) in enumerate(
            zip(self._times, self._embeddings, strict=True), start=1
        ):
            begin_s = _now_s()
            if haste.deadline_s is not None and begin_s + longest_s > haste.deadline_s:
                raise DeadlineError(
                    f'deadline: given up before step {taken} of {len(self._times)}'
                )
            if pause_s > 0.0:
                _sleep(pause_s)
            x_next, velocity = step(x, embedding, self._dt)
            if guide is not None:
                velocity = guide(x, velocity, time)
                x_next = x + self._dt * velocity
            if last_velocity is not None and haste.adaptive_tolerance > 0.0:
                change = np.abs(velocity - last_velocity).max()
                if change <= haste.adaptive_tolerance:
                    return x - time * velocity, taken
            x, last_velocity = x_next, velocity
            longest_s = max(longest_s, _now_s() - begin_s)
        return x, len(self._times)
