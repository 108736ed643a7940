# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the verbs print: stages with their times, and errors as one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def progress_lines(program: str) -> Callable[[str], None]:
    """Return a function that prints a stage and the seconds since the start to stderr."""
    begin = time.monotonic()

    def show(stage: str) -> None:
        print(f'{program}: {time.monotonic() - begin:6.1f} s  {stage}', file=sys.stderr, flush=True)

    return show


def one_line(error: BaseException) -> str:
    """Return an error as one line; for a failed system call, the file and the reason."""
    if isinstance(error, OSError) and error.strerror:
        return f'{error.filename or "output"}: {error.strerror}'
    return ' '.join(str(error).split())
