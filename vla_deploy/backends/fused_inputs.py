# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a fused policy takes: observations in a few fixed sizes."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_deploy.models.pi import PiConfig
from vla_deploy.models.smolvla import SmolVLAConfig

Config = SmolVLAConfig | PiConfig
BUCKETS = 4
BLOCK_ROWS = 64  # that a product takes at a time


class Bucket(NamedTuple):
    """A size that graphs are made for: cameras that are there and rows for language tokens, of
    each of so many observations."""

    cameras: int
    tokens: int
    observations: int = 1


def lengths_of(config: Config, cameras: int) -> list[int]:
    """Return the lengths of a text that graphs are made for, the smallest first: those whose rows,
    with those of images and state, fill whole blocks, and the longest text. At most four.

    A shorter text of as many blocks takes no less time: SmolVLA's chunk on an H200 took 5.37 ms
    with rows for 16 tokens and 5.33 ms with rows for 48.
    """
    rows = cameras * config.tokens_per_image + isinstance(config, SmolVLAConfig)
    step = -(-config.max_tokens // (BUCKETS * BLOCK_ROWS)) * BLOCK_ROWS
    filling = [*range(BLOCK_ROWS - rows % BLOCK_ROWS, config.max_tokens, step)]
    return [*filling[1 - BUCKETS:], config.max_tokens]


def bucket_of(config: Config, cameras: int, tokens: int, observations: int = 1) -> Bucket:
    """Return the smallest size that holds a number of tokens, the largest where none does."""
    lengths = lengths_of(config, cameras)
    fitting = [length for length in lengths if length >= tokens]
    return Bucket(cameras, (fitting or lengths[-1:])[0], observations)


def buckets_of(config: Config, cameras: int, observations: int) -> list[Bucket]:
    """Return the sizes that hold any number of tokens, the smallest first."""
    return [Bucket(cameras, length, observations) for length in lengths_of(config, cameras)]


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


def put(target: Tensor, value: NDArray[Any]) -> None:
    """Copy to the device, and convert there."""
    target.copy_(torch.from_numpy(np.ascontiguousarray(value)).to(target.device))
