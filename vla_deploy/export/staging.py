# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, which becomes `target` when the block ends well.

    An exception in the block, Ctrl-C and a full disk among them, removes the folder. Raises
    FileExistsError where the target is there already, OSError where nothing can be written.
    """
    if target.exists() or target.is_symlink():
        raise FileExistsError(f'{target} exists already; remove it or name another folder')
    if not target.parent.is_dir():
        raise FileNotFoundError(f'{target.parent} is not a folder; make it first')
    folder = Path(tempfile.mkdtemp(prefix=f'.{target.name}.', dir=target.parent))
    try:
        yield folder
        for path in folder.iterdir():
            path.chmod(0o644)
            _sync(path)
        folder.chmod(0o755)
        _sync(folder)
        folder.rename(target)
        _sync(target.parent)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(target)  # a failed write does not say where
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
