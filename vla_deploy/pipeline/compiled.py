# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How resize.c becomes a library: by setup.py, or once where the sources are run as they are.

The library's name holds the processor and a digest of what it was made from, so that one of another
machine or an old one is never loaded. This file is run by setup.py before anything is installed: it
imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name('resize.c')
# no contraction: a fused multiply-add rounds once where the others round twice
FLAGS = ('-std=c11', '-O3', '-ffp-contract=off', '-Wall', '-Wextra', '-fPIC', '-shared')


class CompileError(RuntimeError):
    """The library of the image code cannot be made or loaded; says what to do."""


def library_name() -> str:
    """Return the file name of the library that the source and the flags make."""
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()
    return f'resize-{platform.machine()}-{digest[:16]}.so'


def compile_library(target: Path) -> None:
    """Compile the source to `target` with `$CC`, else cc; whole or not at all.

    Raises CompileError where there is no compiler, or it fails, or the folder is not writable.
    """
    compiler = os.environ.get('CC') or 'cc'
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix='.resize-', dir=target.parent)
    except OSError as error:
        raise CompileError(f'{target}: cannot be written: {error.strerror}') from error
    os.close(descriptor)
    try:
        subprocess.run(
            [*compiler.split(), *FLAGS, str(SOURCE), '-o', temporary],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        os.chmod(temporary, 0o755)
        os.replace(temporary, target)
    except OSError as error:
        raise CompileError(
            f'{SOURCE.name} needs a C compiler, and {compiler!r} is none: {error.strerror}; '
            'install one (apt-get install build-essential), or set CC'
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f'exit code {error.returncode}']
        raise CompileError(f'{SOURCE}: {compiler!r} does not compile it: {said[0]}') from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
