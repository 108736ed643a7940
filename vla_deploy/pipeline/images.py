# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Images as the policy was trained on them: bilinear resize that keeps the aspect, then padding.

The numbers are those of torch's `interpolate(mode='bilinear', align_corners=False)` without
antialiasing. What decides the last bits is the source coordinate: it is computed in float64 and
rounded to float32 once, as a fused multiply-add does. What is done for each pixel stands in
resize.c: with numpy it takes three times as long, since it has no product that leaves the colours
apart and no gather that keeps up with memory.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import ImageRule
from vla_deploy.pipeline.native import Axis, Plan, resize_function

CHANNELS = 3
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
    where the resized image would have no pixel at all, and CompileError where the compiled code
    cannot be had.
    """

    def __init__(self, height: int, width: int, rule: ImageRule, bands: int = 1) -> None:
        fitted_height, fitted_width = fitted_size(height, width, rule)
        if fitted_height < 1 or fitted_width < 1:
            raise ValueError(
                f'an image of {width}x{height} pixels vanishes in {rule.width}x{rule.height}'
            )
        self._resize = resize_function()
        self._shape_in = (height, width, CHANNELS)
        self._shape_out = (CHANNELS, rule.height, rule.width)
        top, left = _offsets(fitted_height, fitted_width, rule)
        self._start_bytes = (top * rule.width + left) * np.dtype(np.float32).itemsize
        self._kept: list[NDArray[np.generic]] = []  # what the plan points to
        self._plan = Plan(
            rows=self._axis(bilinear_taps(height, fitted_height), 1),
            columns=self._axis(bilinear_taps(width, fitted_width), CHANNELS),
            source_row=width * CHANNELS,
            width=fitted_width,
            output_row=rule.width,
            output_plane=rule.height * rule.width,
            scale=(rule.value_high - rule.value_low) / 255.0,
            offset=rule.value_low,
        )
        bounds = np.linspace(0, fitted_height, bands + 1).astype(int).tolist()
        # each band has a mixed row of its own, with the float behind it that is read as well
        self._bands = [
            (start, stop, np.zeros(width * CHANNELS + 1, np.float32))
            for start, stop in itertools.pairwise(bounds)
            if stop > start
        ]

    def __call__(self, image: NDArray[np.uint8], out: Float32) -> None:
        """Write `image` (uint8 [height, width, 3]) to `out` (float32 [3, rule.height,
        rule.width]), which must hold `rule.value_low` where the padding is.

        Raises ValueError where one is of another type or shape, or `out` is not contiguous.
        """
        for job in self.jobs(image, out):
            job()

    def jobs(self, image: NDArray[np.uint8], out: Float32) -> list[Callable[[], None]]:
        """Return what `__call__` does in pieces that may run at the same time."""
        if image.dtype != np.uint8 or image.shape != self._shape_in:
            raise ValueError(f'image is {image.dtype} {image.shape}, not uint8 {self._shape_in}')
        if out.dtype != np.float32 or out.shape != self._shape_out or not out.flags.carray:
            raise ValueError(
                f'out is {out.dtype} {out.shape}, not contiguous float32 {self._shape_out}'
            )
        if image.strides[1:] != (CHANNELS, 1):
            image = np.ascontiguousarray(image)
        return [functools.partial(self._band, image, out, *band) for band in self._bands]

    def _band(
        self, image: NDArray[np.uint8], out: Float32, start: int, stop: int, mixed: Float32
    ) -> None:
        self._resize(
            ctypes.byref(self._plan), image.ctypes.data, image.strides[0],
            out.ctypes.data + self._start_bytes, mixed.ctypes.data, start, stop,
        )  # fmt: skip

    def _axis(self, taps: Taps, elements: int) -> Axis:
        """Return the taps of an axis whose pixels have so many elements, for the plan."""
        arrays = (
            (taps.first * elements).astype(np.int32),
            (taps.second * elements).astype(np.int32),
            taps.first_weight,
            taps.second_weight,
        )
        self._kept += arrays
        return Axis(*(array.ctypes.data for array in arrays))


def _offsets(height: int, width: int, rule: ImageRule) -> tuple[int, int]:
    rest_height, rest_width = rule.height - height, rule.width - width
    if rule.placement == 'pad_left_top':
        return rest_height, rest_width
    return rest_height // 2, rest_width // 2
