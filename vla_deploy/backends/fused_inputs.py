# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a fused policy takes: observations in a few fixed sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_deploy.models.pi import PiConfig
from vla_deploy.models.smolvla import SmolVLAConfig
from vla_deploy.pipeline.backend import ModelInputs

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


def size_of(config: Config, observations: Sequence[ModelInputs], together: int) -> Bucket:
    """Return the smallest size for observations with as many cameras each: for one, or for
    `together`."""
    cameras = int(observations[0].image_mask.sum())
    longest = max(int(own.token_mask.sum()) for own in observations)
    return bucket_of(config, cameras, longest, 1 if len(observations) == 1 else together)


def bring(
    observations: Sequence[ModelInputs], inputs: Inputs, length: Tensor, fixed: int
) -> Callable[[], None]:
    """Copy images to the device, which computes nothing for that; returns what copies the rest and
    puts all in its place.

    `length`, int32 [observations at most], gets the rows of each one's prefix, which are `fixed`
    and its tokens. Where there are fewer observations than go together, nobody reads what comes of
    the rest.
    """
    seen = [_brought(_images_of(own), length.device) for own in observations]

    def place() -> None:
        length.fill_(fixed)
        for slot, (own, images) in enumerate(zip(observations, seen, strict=True)):
            inputs.images[slot * len(images) : (slot + 1) * len(images)].copy_(images)
            text = own.tokens[own.token_mask]
            padded = np.zeros(inputs.tokens.shape[1], np.int64)
            padded[: len(text)] = text
            put(inputs.tokens[slot], padded)
            put(inputs.state[slot], own.state)
            length[slot].fill_(fixed + len(text))

    return place


def put(target: Tensor, value: NDArray[Any]) -> None:
    """Copy to the device, and convert there."""
    target.copy_(_brought(value, target.device))


def _images_of(own: ModelInputs) -> NDArray[np.float32]:
    """Return images of the cameras that are there."""
    there = own.image_mask
    return own.images if there.all() else own.images[there]


def _brought(value: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value)).to(device)
