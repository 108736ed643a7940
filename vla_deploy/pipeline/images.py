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
# Bytes from pixel to pixel and from red to green that are read as they are: RGB, BGR, RGBA, BGRA.
# Images of other strides are copied.
LAYOUTS = ((3, 1), (3, -1), (4, 1), (4, -1))
Float32 = NDArray[np.float32]
FLOAT_BYTES = 4


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
        self._rule = rule
        self._shape_in = (height, width, CHANNELS)
        self._shape_out = (CHANNELS, rule.height, rule.width)
        self._window = (*_offsets(fitted_height, fitted_width, rule), fitted_width)
        self._row_taps = bilinear_taps(height, fitted_height)
        self._column_taps = bilinear_taps(width, fitted_width)
        self._kept: list[NDArray[np.generic]] = []  # what the plans point to
        self._plans: dict[tuple[int, ...], Plan] = {}
        bounds = np.linspace(0, fitted_height, bands + 1).astype(int).tolist()
        # each band has a mixed row of its own, with the float behind it that is read as well
        room = width * max(LAYOUTS)[0] + 1
        self._bands = [
            (start, stop, np.zeros(room, np.float32))
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
        layout = image.strides[1:]
        if layout not in LAYOUTS:
            image, layout = np.ascontiguousarray(image), (CHANNELS, 1)
        if layout not in self._plans:
            self._plans[layout] = self._plan(*layout)
        plan = self._plans[layout]
        top, left, _ = self._window
        source, target = image.ctypes.data, out.ctypes.data
        target += (top * self._rule.width + left) * FLOAT_BYTES
        if plan.output_plane < 0:  # the first byte is blue's, and goes to the last plane
            source -= CHANNELS - 1
            target -= (CHANNELS - 1) * plan.output_plane * FLOAT_BYTES
        return [
            functools.partial(
                self._band, (image, out), plan, source, image.strides[0], target, *band
            )
            for band in self._bands
        ]

    def _band(
        self,
        _alive: tuple[NDArray[np.uint8], Float32],
        plan: Plan,
        source: int,
        source_row: int,
        target: int,
        start: int,
        stop: int,
        mixed: Float32,
    ) -> None:
        """Write some rows; the addresses are those of arrays in `_alive`."""
        row = mixed.ctypes.data
        self._resize(ctypes.byref(plan), source, source_row, target, row, start, stop)

    def _plan(self, pixel: int, colour: int) -> Plan:
        """Return the plan for images of such a layout."""
        _, width, _ = self._shape_in
        rule = self._rule
        return Plan(
            rows=self._axis(self._row_taps, 1),
            columns=self._axis(self._column_taps, pixel),
            source_row=(width - 1) * pixel + CHANNELS,
            width=self._window[2],
            output_row=rule.width,
            output_plane=colour * rule.height * rule.width,
            scale=(rule.value_high - rule.value_low) / 255.0,
            offset=rule.value_low,
        )

    def _axis(self, taps: Taps, elements: int) -> Axis:
        """Return the taps of an axis whose pixels have so many elements, for a plan."""
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
