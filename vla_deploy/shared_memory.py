# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Gives back the shared memory of nodes that were killed.

Fast DDS keeps 32 MiB of /dev/shm for each participant and removes them when it ends in order. One
that is killed leaves them behind until the machine restarts. A participant holds a lock on
`fastrtps_<id>_el` as long as it lives, and the kernel lets go of it with the process.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

SHARED_MEMORY = Path('/dev/shm')
SETTLED_S = 5.0
"""A younger lock file may belong to a participant that has made it and not locked it yet."""


def remove_stale_segments(folder: Path = SHARED_MEMORY) -> list[str]:
    """Remove this user's segments whose participant is gone; return their names.

    Ports are left alone: others may still write to one that a dead participant read from.
    """
    removed = []
    for lock in sorted(folder.glob('fastrtps_*_el')):
        name = lock.name.removesuffix('_el')
        if not name.startswith('fastrtps_port') and _is_stale(lock):
            (folder / name).unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            removed.append(name)
    return removed


def _is_stale(lock: Path) -> bool:
    try:
        file = os.open(lock, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        return False  # ended in order meanwhile, or another user's
    try:
        status = os.fstat(file)
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < SETTLED_S:
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True
