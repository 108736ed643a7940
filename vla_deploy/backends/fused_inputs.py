# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a fused policy takes: observations in a few fixed sizes."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from vla_deploy.models.pi import PiConfig
from vla_deploy.models.smolvla import SmolVLAConfig

Config = SmolVLAConfig | PiConfig
BUCKETS = 4
BUCKET_STEP = 8


class Bucket(NamedTuple):
    """A size that graphs are made for: cameras that are there and rows for language tokens, of
    each of so many observations."""

    cameras: int
    tokens: int
    observations: int = 1


def bucket_of(config: Config, cameras: int, tokens: int, observations: int = 1) -> Bucket:
    """Return the smallest of at most four sizes that holds a number of tokens."""
    step = -(-config.max_tokens // BUCKETS)
    step = -(-step // BUCKET_STEP) * BUCKET_STEP
    length = min(max(1, -(-tokens // step)) * step, config.max_tokens)
    return Bucket(cameras, length, observations)


def buckets_of(config: Config, cameras: int, observations: int) -> list[Bucket]:
    """Return the sizes that hold any number of tokens, the smallest first."""
    lengths = range(1, config.max_tokens + 1)
    return sorted({bucket_of(config, cameras, length, observations) for length in lengths})


@dataclasses.dataclass(eq=False)
class Inputs:
    """Observations of a bucket's size on the device. images [observations·cameras,3,H,W] in
    [-1,1]; tokens int64 [observations,tokens], those of padding last; state
    [observations,padded]."""

    images: Tensor
    tokens: Tensor
    state: Tensor

    @classmethod
    def empty(
        cls, config: Config, bucket: Bucket, dtype: torch.dtype, device: torch.device,
        images: Tensor | None = None,
    ) -> Inputs:
        """Return zeros of a bucket's size, to be filled; `images`: of another bucket's inputs."""
        count = bucket.observations
        shape = (count * bucket.cameras, 3, config.image_height, config.image_width)
        return cls(
            torch.zeros(shape, dtype=dtype, device=device) if images is None else images,
            torch.zeros((count, bucket.tokens), dtype=torch.int64, device=device),
            torch.zeros((count, config.max_state_dim), dtype=dtype, device=device),
        )
