# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the verbs print: stages with their times, and errors as one line."""

from __future__ import annotations

import functools
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

INTERRUPTED = 130  # what a shell gives a command that Ctrl-C ended
_MAX_REASON = 300
Main = Callable[..., int]


def interruptible(program: str, said: str = 'interrupted') -> Callable[[Main], Main]:
    """Return a decorator of a `main`: Ctrl-C, and SIGTERM as well, which else would leave half
    written files behind, end it with one line and exit code 130."""

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            before = signal.signal(signal.SIGTERM, _interrupt)
            try:
                return main(argv)
            except KeyboardInterrupt:
                print(f'{program}: {said}', file=sys.stderr)
                return INTERRUPTED
            finally:
                signal.signal(signal.SIGTERM, before)

        return run

    return decorate


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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
