# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a served policy gives: a chunk, and how it came about."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Timings:
    """Durations of one inference by the steady clock, in seconds.

    Where a variant computes the whole chunk in one run, all of that is `sample_s`, and `prefix_s`
    is 0; observations that are computed together have one such run.
    """

    preprocess_s: float
    prefix_s: float
    sample_s: float
    postprocess_s: float


@dataclasses.dataclass(frozen=True, eq=False)
class PolicyChunk:
    """What a policy wants to do: `actions` float64 [steps, dim] in robot units, and `raw`
    float32 [steps, padded_dim] in model space.

    `noise_seed` is None where the caller gave the noise. `prompt_truncated` says that the end of
    the prompt was not seen by the policy, `state_lost` that this cost it (part of) the state, which
    some policies read as text, `missing_cameras` which cameras it did without.
    `denoise_steps` were taken, all of the contract's where nothing cut them short.
    `finite` is False where an element is NaN or infinite; such a chunk is returned as it is, for
    the guard to refuse.
    """

    actions: NDArray[np.float64]
    raw: NDArray[np.float32]
    timings: Timings
    noise_seed: int | None
    prompt_truncated: bool
    state_lost: bool
    missing_cameras: tuple[str, ...]
    instruction: str
    denoise_steps: int
    finite: bool
