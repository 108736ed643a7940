# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a video can be decoded, and how many frames it has."""

from __future__ import annotations

from pathlib import Path

import av


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
