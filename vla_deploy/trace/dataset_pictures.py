# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the videos of a data set, and the images within its data files, hold once decoded."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image

from vla_deploy.trace.dataset import feature_names

_ROWS = 64  # images that are in memory at the same time
_CHANNELS = ('channel', 'channels')
_MOST_CHANNELS = 4


class VideoError(ValueError):
    """A video cannot be decoded; one line."""


@dataclass(frozen=True, eq=False)
class Video:
    """A video that was decoded whole. times: when each frame is shown [s]; size: height and width
    of the first one [pixels]."""

    times: NDArray[np.float64]
    size: tuple[int, int]


def decoded_video(path: Path) -> Video:
    """Decode the whole video; raises VideoError."""
    times: list[float] = []
    size = 0, 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError('holds no video')
            for frame in container.decode(video=0):
                size = size if times else (frame.height, frame.width)
                times.append(np.nan if frame.time is None else frame.time)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f'cannot be decoded: {" ".join(str(error).split())}') from error
    return Video(np.asarray(times, np.float64), size)


def declared_size(feature: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of a camera's pictures as its feature declares them; None where its
    shape is none of a picture. Channels stand last, but in some older sets first."""
    shape, names = tuple(map(int, feature['shape'])), feature_names(feature)
    if len(shape) != 3:
        return None
    named = len(names) == 3 and (names[0] in _CHANNELS or names[2] in _CHANNELS)
    if names[0] in _CHANNELS if named else shape[2] > _MOST_CHANNELS >= shape[0]:
        return shape[1:]
    return shape[:2]


def broken_picture(path: Path, column: str, size: tuple[int, int] | None) -> str:
    """Return which image of a column of a data file cannot be decoded, or has not this height and
    width, and why; empty: none.

    A row holds {bytes, path}, as the library `datasets` writes images.
    """
    row = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(_ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                problem = _problem(value, size)
                if problem:
                    return f'row {row}: {problem}'
                row += 1
    except (OSError, pyarrow.ArrowException) as error:
        return f'cannot be read: {" ".join(str(error).split())}'
    return ''


def another_size(size: tuple[int, int], declared: tuple[int, int] | None) -> str:
    """Return in what a picture's height and width are not those declared; empty: in nothing."""
    if declared is None:
        return 'its shape is declared, but not as that of a picture'
    if size == declared:
        return ''
    return (f'pictures of {size[0]} x {size[1]} pixels (height x width), declared '
            f'{declared[0]} x {declared[1]}')  # fmt: skip


def _problem(value: Any, size: tuple[int, int] | None) -> str:
    data = value.get('bytes') if isinstance(value, dict) else None
    if not data:
        return 'holds no image'
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return another_size((image.height, image.width), size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f'cannot be decoded: {" ".join(str(error).split())}'
