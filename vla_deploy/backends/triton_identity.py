# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How Triton tells itself from other Tritons in the names of what it compiled.

By itself it hashes all of its files, of which one has 400 MB, in every process: 0.4 to 0.5 s,
longer than all kernels of a policy take to load.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import triton
from triton.runtime import cache

TESTED = ('3.6.0',)  # versions whose name for themselves is made where it is put here
CACHED = '__pycache__'  # which Python writes when it likes


def tell_by_files() -> None:
    """Let Triton be told by its version and the names, sizes and times of its files, in this
    process, where its version is one that this was tested with; any other hashes itself.

    What is in Triton's cache under names of either kind stays valid, and neither is taken for the
    other.
    """
    if triton.__version__ in TESTED:
        cache.triton_key = _identity


@functools.cache
def _identity() -> str:
    return identity(Path(triton.__file__).parent, triton.__version__)


def identity(folder: Path, version: str) -> str:
    """Return a name for what is installed in a folder; raises OSError where it cannot be read."""
    told = hashlib.sha256()
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if name != CACHED)
        for name in sorted(names):
            path = os.path.join(place, name)
            found = os.stat(path)
            told.update(f'{path}\0{found.st_size}\0{found.st_mtime_ns}\n'.encode())
    return f'{version}-files-{told.hexdigest()}'


def _raise(error: OSError) -> None:
    raise error
