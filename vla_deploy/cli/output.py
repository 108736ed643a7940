# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the verbs print: stages with their times, and errors as one line."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Callable

_MAX_REASON = 300


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


def unforeseen(program: str, error: Exception) -> str:
    """Return one line for an error that nobody foresaw; its traceback goes into a file."""
    descriptor, path = tempfile.mkstemp(prefix=f'vla_deploy_{program}_', suffix='.log')
    with open(descriptor, 'w', encoding='utf-8') as file:
        file.writelines(traceback.format_exception(error))
    reason = one_line(error)[:_MAX_REASON]
    return f'unforeseen {type(error).__name__}: {reason}; please report it with {path}'
