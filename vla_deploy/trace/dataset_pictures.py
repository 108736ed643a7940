# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the videos of a data set, and the images within its data files, can be decoded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import pyarrow
import pyarrow.parquet
from PIL import Image

_ROWS = 64  # images that are in memory at the same time


class VideoError(ValueError):
    """A video cannot be decoded; one line."""


def frames_of(path: Path) -> int:
    """Decode the whole video and return the number of its frames; raises VideoError."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError('holds no video')
            return sum(1 for _ in container.decode(video=0))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f'cannot be decoded: {" ".join(str(error).split())}') from error


def broken_picture(path: Path, column: str) -> str:
    """Return which image of a column of a data file cannot be decoded and why; empty: none.

    A row holds {bytes, path}, as the library `datasets` writes images.
    """
    row = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(_ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                problem = _problem(value)
                if problem:
                    return f'row {row}: {problem}'
                row += 1
    except (OSError, pyarrow.ArrowException) as error:
        return f'cannot be read: {" ".join(str(error).split())}'
    return ''


def _problem(value: Any) -> str:
    data = value.get('bytes') if isinstance(value, dict) else None
    if not data:
        return 'holds no image'
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f'cannot be decoded: {" ".join(str(error).split())}'
    return ''
