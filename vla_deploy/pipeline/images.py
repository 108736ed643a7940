# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Images as the policy was trained on them: bilinear resize that keeps the aspect, then padding.

The numbers are those of torch's `interpolate(mode='bilinear', align_corners=False)` without
antialiasing. What decides the last bits is the source coordinate: it is computed in float64 and
rounded to float32 once, as a fused multiply-add does.

An image is worked on in strips that stay in the cache. Rows are mixed by small matrix products,
which also scale to the value range. Columns are mixed by one more product where the pattern of
source columns repeats and its weights are exact in float32 (640 → 512: every 5 columns become 4),
which also sorts the channels; otherwise they are gathered.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import ImageRule

CHANNELS = 3
STRIP_ROWS = 96  # rows that go through the second stage together, measured: 48 and 384 are slower
PRODUCT_ROWS = (8, 4, 2, 1)  # rows of one product of the first stage, the most that is allowed
MAX_BLOCK_COLUMNS = 64  # beyond that the product does more needless work than gathering does
# OpenBLAS takes several threads for products of more multiplications than this; waking them costs
# more than the product, and they would take a core from the guard.
MAX_PRODUCT = 1 << 18
Float32 = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Taps:
    """For every output pixel of one axis: its two source pixels and their float32 weights."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    first_weight: Float32
    second_weight: Float32


def bilinear_taps(size_in: int, size_out: int) -> Taps:
    """Return the taps that torch uses for align_corners=False, to the last bit."""
    scale = np.float64(np.float32(size_in) / np.float32(size_out))
    center = scale * (np.arange(size_out, dtype=np.float64) + 0.5) - 0.5
    source = np.maximum(center, 0.0).astype(np.float32)
    first = source.astype(np.int64)
    second_weight = source - first.astype(np.float32)
    second = np.where(second_weight > 0, np.minimum(first + 1, size_in - 1), first)
    return Taps(first, second, np.float32(1.0) - second_weight, second_weight)


def fitted_size(height: int, width: int, rule: ImageRule) -> tuple[int, int]:
    """Return height and width of an image after the resize, before the padding."""
    if (height, width) == (rule.height, rule.width):
        return height, width
    ratio = max(width / rule.width, height / rule.height)
    return int(height / ratio), int(width / ratio)


class Resizer:
    """Resize and pad images of one size; everything that depends on the size alone is kept.

    The work is cut into `bands` of rows that may run in threads of their own. Raises ValueError
    where the resized image would have no pixel at all.
    """

    def __init__(self, height: int, width: int, rule: ImageRule, bands: int = 1) -> None:
        fitted_height, fitted_width = fitted_size(height, width, rule)
        if fitted_height < 1 or fitted_width < 1:
            raise ValueError(
                f'an image of {width}x{height} pixels vanishes in {rule.width}x{rule.height}'
            )
        self._flat_shape = (height, width * CHANNELS)
        top, left = _offsets(fitted_height, fitted_width, rule)
        self._window = (
            slice(None), slice(top, top + fitted_height), slice(left, left + fitted_width)
        )
        strips = _strips(bilinear_taps(height, fitted_height), width, rule)
        column_taps = bilinear_taps(width, fitted_width)
        bounds = np.linspace(0, len(strips), bands + 1).astype(int)
        self._bands = [
            _Band(strips[low:high], width, column_taps)
            for low, high in itertools.pairwise(bounds)
            if high > low
        ]

    def __call__(self, image: NDArray[np.uint8], out: Float32) -> None:
        """Write `image` (uint8 [height, width, 3]) to `out` (float32 [3, rule.height,
        rule.width]), which must hold `rule.value_low` where the padding is."""
        for job in self.jobs(image, out):
            job()

    def jobs(self, image: NDArray[np.uint8], out: Float32) -> list[Callable[[], None]]:
        """Return what `__call__` does in pieces that may run at the same time."""
        flat = image.reshape(self._flat_shape)
        return [functools.partial(band, flat, out[self._window]) for band in self._bands]


class _Band:
    """Some strips of rows and the buffers to work on them, one strip after the other."""

    def __init__(self, strips: list[list[_RowProduct]], width: int, column_taps: Taps) -> None:
        self._mix_columns = _column_mixer(column_taps, width)
        most_rows = max(part.weights.shape[1] for strip in strips for part in strip)
        pixels = np.ones((most_rows, width * CHANNELS), np.float32)
        mixed = np.empty((STRIP_ROWS, width * CHANNELS), np.float32)
        # all views are made here: making them for every image would cost a tenth of its time
        self._strips = []
        for strip in strips:
            first, last = strip[0].start, strip[-1].stop
            steps = [
                (
                    part.source,
                    pixels[1 : part.weights.shape[1]],
                    part.weights,
                    pixels[: part.weights.shape[1]],
                    mixed[part.start - first : part.stop - first],
                )
                for part in strip
            ]
            self._strips.append((slice(first, last), steps, mixed[: last - first]))

    def __call__(self, flat: NDArray[np.uint8], window: Float32) -> None:
        for rows, steps, mixed in self._strips:
            for source, image_rows, weights, pixels, out in steps:
                np.copyto(image_rows, flat[source])
                np.matmul(weights, pixels, out=out)
            self._mix_columns(mixed, window[:, rows])


def _offsets(height: int, width: int, rule: ImageRule) -> tuple[int, int]:
    rest_height, rest_width = rule.height - height, rule.width - width
    if rule.placement == 'pad_left_top':
        return rest_height, rest_width
    return rest_height // 2, rest_width // 2


@dataclasses.dataclass(frozen=True)
class _RowProduct:
    """Output rows start..stop are `weights` @ [a row of ones, the input rows `source`]."""

    start: int
    stop: int
    source: slice | NDArray[np.int64]
    weights: Float32


def _strips(taps: Taps, width: int, rule: ImageRule) -> list[list[_RowProduct]]:
    rows = len(taps.first)
    per_product = next(
        (n for n in PRODUCT_ROWS if n * (2 * n + 1) * width * CHANNELS <= MAX_PRODUCT), 1
    )
    return [
        [
            _row_product(taps, rule, start, min(start + per_product, rows))
            for start in range(strip, min(strip + STRIP_ROWS, rows), per_product)
        ]
        for strip in range(0, rows, STRIP_ROWS)
    ]


def _row_product(taps: Taps, rule: ImageRule, start: int, stop: int) -> _RowProduct:
    outputs = slice(start, stop)
    used = np.unique(np.concatenate([taps.first[outputs], taps.second[outputs]]))
    scale = np.float32((rule.value_high - rule.value_low) / 255.0)
    offset = np.full((stop - start, 1), rule.value_low, np.float32)
    weights = np.concatenate([offset, _dense(taps, outputs, used) * scale], axis=1)
    is_contiguous = int(used[-1] - used[0]) + 1 == len(used)
    source = slice(int(used[0]), int(used[-1]) + 1) if is_contiguous else used
    return _RowProduct(start, stop, source, weights)


def _dense(taps: Taps, outputs: slice, used: NDArray[np.int64]) -> Float32:
    """Return the weights of some outputs as a matrix over the `used` inputs (ascending)."""
    index = np.arange(len(taps.first[outputs]))
    weights = np.zeros((len(index), len(used)), np.float32)
    weights[index, np.searchsorted(used, taps.first[outputs])] += taps.first_weight[outputs]
    weights[index, np.searchsorted(used, taps.second[outputs])] += taps.second_weight[outputs]
    return weights


class _ColumnMixer(Protocol):
    def __call__(self, rows: Float32, out: Float32) -> None:
        """Mix the columns of `rows` [n, width in · 3] into the planes `out` [3, n, width out]."""


def _column_mixer(taps: Taps, width: int) -> _ColumnMixer:
    fitted = len(taps.first)
    divisor = math.gcd(width, fitted)
    # planes are written four floats at a time, so a block has a multiple of four outputs
    repeats = 4 // math.gcd(fitted // divisor, 4)
    block_in, block_out = width // divisor * repeats, fitted // divisor * repeats
    if (
        divisor % repeats == 0
        and block_in <= MAX_BLOCK_COLUMNS
        and width * CHANNELS * block_out * CHANNELS <= MAX_PRODUCT
        and _repeats(taps, block_in, block_out)
    ):
        return _BlockColumns(_dense(taps, slice(0, block_out), np.arange(block_in)), fitted)
    return _GatherColumns(taps)


def _repeats(taps: Taps, block_in: int, block_out: int) -> bool:
    """Say whether each `block_out` outputs come from their own `block_in` inputs, alike."""
    blocks = len(taps.first) // block_out
    for index in (taps.first, taps.second):
        grid = index.reshape(blocks, block_out) - block_in * np.arange(blocks)[:, np.newaxis]
        if (grid != grid[0]).any() or grid.min() < 0 or grid.max() >= block_in:
            return False
    weights = taps.second_weight.reshape(blocks, block_out)
    return bool((weights == weights[0]).all())


class _BlockColumns:
    """Columns mixed by one product: every block of input columns gives one of output columns.

    The product leaves the channels of a block one after the other, so that planes are made by
    copying four floats at a time.
    """

    def __init__(self, weights: Float32, fitted: int) -> None:
        block_out, block_in = weights.shape
        matrix = np.zeros((block_in, CHANNELS, CHANNELS, block_out), np.float32)
        for channel in range(CHANNELS):
            matrix[:, channel, channel] = weights.T
        self._matrix = matrix.reshape(block_in * CHANNELS, CHANNELS * block_out)
        self._blocks = fitted // block_out
        self._quads = block_out // 4
        self._product = np.empty((STRIP_ROWS, self._blocks, CHANNELS * block_out), 'f4')

    def __call__(self, rows: Float32, out: Float32) -> None:
        count = len(rows)
        product = self._product[:count]
        np.matmul(rows.reshape(count, self._blocks, -1), self._matrix, out=product)
        quads: Any = product.view(np.complex128)
        shaped = quads.reshape(count, self._blocks, CHANNELS, self._quads)
        planes: Any = out.view(np.complex128)
        target = planes.reshape(CHANNELS, count, self._blocks, self._quads)
        np.copyto(target, shaped.transpose(2, 0, 1, 3))


class _GatherColumns:
    """Columns gathered one by one, for any pair of sizes."""

    def __init__(self, taps: Taps) -> None:
        channels = np.arange(CHANNELS)[:, np.newaxis]
        self._first = (taps.first * CHANNELS + channels).ravel()
        self._second = (taps.second * CHANNELS + channels).ravel()
        self._first_weight = np.tile(taps.first_weight, CHANNELS)
        self._second_weight = np.tile(taps.second_weight, CHANNELS)
        self._buffers = np.empty((2, STRIP_ROWS, len(self._first)), 'f4')

    def __call__(self, rows: Float32, out: Float32) -> None:
        first, second = self._buffers[:, : len(rows)]
        np.take(rows, self._first, axis=1, out=first, mode='clip')
        np.take(rows, self._second, axis=1, out=second, mode='clip')
        first *= self._first_weight
        second *= self._second_weight
        first += second
        np.copyto(out, first.reshape(len(rows), CHANNELS, -1).transpose(1, 0, 2))
