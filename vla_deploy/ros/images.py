# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Image messages to RGB arrays, as cv_bridge converts them to rgb8.

`step` and `is_bigendian` are honoured; a message whose sizes disagree is an error.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError
from sensor_msgs.msg import CompressedImage, Image

from vla_deploy.ros.conversions import ConversionError, time_msg

UInt8 = NDArray[np.uint8]
MAX_PIXELS = 64_000_000
FORMATS = ('JPEG', 'PNG')
MM_TO_M = 1e-3


@dataclass(frozen=True)
class _Layout:
    """How the pixels of an encoding lie in the data, and how they become RGB.

    convert: [height, width, channels] of the type -> uint8 [height, width, 3]. depth_m: for depth
    images the length in metres of one unit; those are made grey by the caller's range.
    """

    dtype: str
    channels: int
    convert: Callable[[NDArray[Any]], UInt8] | None = None
    depth_m: float = 0.0


def _colours(which: slice) -> Callable[[NDArray[Any]], UInt8]:
    """Return the view of three of the channels; the resize reads it as it is."""
    return lambda pixels: pixels[..., which]


def _half(pixels: NDArray[Any]) -> UInt8:
    """Return 16 bits as 8, as cv_bridge does: by 255/65535, to the nearest, half to even."""
    result: UInt8 = np.rint(pixels * (255.0 / 65535.0)).astype(np.uint8)
    return result


def _grey(pixels: NDArray[Any]) -> UInt8:
    return np.repeat(pixels, 3, axis=2)


def _grey_of_16(pixels: NDArray[Any]) -> UInt8:
    return _grey(_half(pixels))


def _bayer(row: int, column: int) -> Callable[[NDArray[Any]], UInt8]:
    """Return the bilinear demosaic of a pattern whose first red pixel lies there."""

    def convert(pixels: NDArray[Any]) -> UInt8:
        return _demosaic(pixels[..., 0], row, column)

    return convert


def _demosaic(mosaic: NDArray[Any], row: int, column: int) -> UInt8:
    """Return uint8 [height, width, 3]: each missing colour is the mean of its nearest neighbours.

    As OpenCV's bilinear demosaic: rounded up at halves, and at the edge the pixel beside it.
    """
    height, width = mosaic.shape
    if height < 3 or width < 3:
        raise ConversionError(f'a bayer image of {width} x {height} pixels has no inner pixel')
    grid = mosaic.astype(np.int32)
    up, down, left, right = grid[:-2, 1:-1], grid[2:, 1:-1], grid[1:-1, :-2], grid[1:-1, 2:]
    here = grid[1:-1, 1:-1]
    corners = (grid[:-2, :-2] + grid[:-2, 2:] + grid[2:, :-2] + grid[2:, 2:] + 2) >> 2
    cross = (up + down + left + right + 2) >> 2
    across, along = (left + right + 1) >> 1, (up + down + 1) >> 1
    rows = (np.arange(1, height - 1) % 2 == row)[:, np.newaxis]
    columns = (np.arange(1, width - 1) % 2 == column)[np.newaxis, :]
    red, blue = rows & columns, ~rows & ~columns
    inner = np.empty((height - 2, width - 2, 3), np.int32)
    inner[..., 1] = np.where(red | blue, cross, here)
    for channel, own, other, in_row in ((0, red, blue, rows), (2, blue, red, ~rows)):
        beside = np.where(in_row, across, along)
        inner[..., channel] = np.where(own, here, np.where(other, corners, beside))
    whole = np.pad(inner, ((1, 1), (1, 1), (0, 0)), mode='edge')
    result: UInt8 = (whole if mosaic.dtype == np.uint8 else _half(whole)).astype(np.uint8)
    return result


# BT.601, limited range, as OpenCV computes it: 20 bits behind the point
_SHIFT = 20
_Y, _RV, _GV, _GU, _BU = (
    round(f * (1 << _SHIFT)) for f in (1.164, 1.596, -0.813, -0.391, 2.018)
)


def _yuv(luma: int) -> Callable[[NDArray[Any]], UInt8]:
    """Return the conversion of 4:2:2 pairs whose first luma is byte 0 or 1; u before v."""

    def convert(pixels: NDArray[Any]) -> UInt8:
        width = pixels.shape[1]
        if width % 2:
            raise ConversionError(f'yuv422 comes in pairs of pixels, but the width is {width}')
        y = pixels[..., luma].astype(np.int32)
        chroma = pixels[..., 1 - luma].astype(np.int32) - 128
        u, v = np.repeat(chroma[:, 0::2], 2, axis=1), np.repeat(chroma[:, 1::2], 2, axis=1)
        base = np.maximum(y - 16, 0) * _Y + (1 << (_SHIFT - 1))
        rgb = np.stack((base + _RV * v, base + _GV * v + _GU * u, base + _BU * u), axis=2)
        result: UInt8 = np.clip(rgb >> _SHIFT, 0, 255).astype(np.uint8)
        return result

    return convert


_UYVY, _YUYV = _Layout('u1', 2, _yuv(1)), _Layout('u1', 2, _yuv(0))
_LAYOUTS = {
    'rgb8': _Layout('u1', 3),
    'bgr8': _Layout('u1', 3, _colours(slice(2, None, -1))),
    'rgba8': _Layout('u1', 4, _colours(slice(3))),
    'bgra8': _Layout('u1', 4, _colours(slice(2, None, -1))),
    'mono8': _Layout('u1', 1, _grey),
    'mono16': _Layout('u2', 1, _grey_of_16),
    '16UC1': _Layout('u2', 1, depth_m=MM_TO_M),
    '32FC1': _Layout('f4', 1, depth_m=1.0),
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
    **{
        f'bayer_{name}{bits}': _Layout(f'u{bits // 8}', 1, _bayer(row, column))
        for name, row, column in (
            ('rggb', 0, 0), ('bggr', 1, 1), ('gbrg', 1, 0), ('grbg', 0, 1),
        )
        for bits in (8, 16)
    },
}  # fmt: skip


def image_to_rgb(msg: Image | CompressedImage, depth_max_m: float = 0.0) -> UInt8:
    """Return uint8 [height, width, 3] in RGB; for rgb8, bgr8, rgba8 and bgra8 a view of the
    message.

    A depth image (16UC1 in mm, 32FC1 in m) becomes grey: 0 and what is not measured black,
    `depth_max_m` and beyond white; with 0 depth images are refused. Raises ConversionError, which
    names the field that is wrong.
    """
    if isinstance(msg, CompressedImage):
        return _decompressed(msg)
    layout = _LAYOUTS.get(msg.encoding)
    if layout is None:
        raise ConversionError(f'encoding {msg.encoding!r} is none of {", ".join(_LAYOUTS)}')
    if layout.depth_m and not depth_max_m > 0.0:
        raise ConversionError(
            f"encoding {msg.encoding!r} is a depth image: set parameter 'depth_max_m' to show it "
            'to the policy as grey'
        )
    pixels = _pixels(msg, layout)
    if layout.depth_m:
        return _grey(_grey_of_depth(pixels, layout.depth_m, depth_max_m))
    return pixels if layout.convert is None else layout.convert(pixels)


def _pixels(msg: Image, layout: _Layout) -> NDArray[Any]:
    """Return a view [height, width, channels] of the data of a message."""
    dtype = np.dtype(layout.dtype).newbyteorder('>' if msg.is_bigendian else '<')
    pixel_bytes = dtype.itemsize * layout.channels
    row_bytes = msg.width * pixel_bytes
    if msg.width == 0 or msg.height == 0:
        raise ConversionError(f'image is empty: {msg.width} x {msg.height} pixels')
    if msg.step < row_bytes:
        raise ConversionError(
            f'step is {msg.step} bytes, but {msg.width} pixels of {msg.encoding} take {row_bytes}'
        )
    # The last row may come without its padding.
    least, most = (msg.height - 1) * msg.step + row_bytes, msg.height * msg.step
    if not least <= len(msg.data) <= most:
        raise ConversionError(
            f'data has {len(msg.data)} bytes, but {msg.width} x {msg.height} {msg.encoding} '
            f'with step {msg.step} takes {most}'
        )
    return np.ndarray(
        shape=(msg.height, msg.width, layout.channels),
        dtype=dtype,
        buffer=memoryview(msg.data),
        strides=(msg.step, pixel_bytes, dtype.itemsize),
    )


def _grey_of_depth(pixels: NDArray[Any], unit_m: float, depth_max_m: float) -> UInt8:
    depth_m = np.nan_to_num(pixels * unit_m, nan=0.0, posinf=0.0, neginf=0.0)
    grey: UInt8 = np.rint(np.clip(depth_m / depth_max_m, 0.0, 1.0) * 255.0).astype(np.uint8)
    return grey


def _decompressed(msg: CompressedImage) -> UInt8:
    """Return the pixels of a JPEG or PNG; transparency is dropped, 16 bits become 8."""
    if len(msg.data) == 0:
        raise ConversionError('data has 0 bytes')
    try:
        with Pillow.open(io.BytesIO(msg.data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ConversionError(
                    f'{image.width} x {image.height} pixels are more than {MAX_PIXELS}'
                )
            if image.mode.startswith('I'):
                return _grey_of_16(np.asarray(image).astype(np.uint16)[..., np.newaxis])
            return np.asarray(image.convert('RGB'))
    except ConversionError:
        raise
    except UnidentifiedImageError as error:
        raise ConversionError(
            f'format {msg.format!r} is neither {" nor ".join(FORMATS)}'
        ) from error
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
        raise ConversionError(f'does not decode as {msg.format!r}: {error}') from error


def rgb_to_image(pixels: UInt8, stamp_ns: int, frame_id: str) -> Image:
    """Return an rgb8 message of uint8 [height, width, 3]."""
    height, width, _ = pixels.shape
    msg = Image(height=height, width=width, encoding='rgb8', step=width * 3, is_bigendian=0)
    msg.header.stamp = time_msg(stamp_ns)
    msg.header.frame_id = frame_id
    msg.data = pixels.tobytes()  # assigning an array instead takes ten times as long
    return msg
