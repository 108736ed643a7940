# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Gives back the shared memory of nodes that were killed.

Fast DDS keeps 32 MiB of /dev/shm for each participant and removes them when it ends in order. One
that is killed leaves them behind until the machine restarts. A participant holds a lock on
`fastrtps_<id>_el` as long as it lives, and the kernel lets go of it with the process.

The ports that it read from stay too, and a later participant takes over their numbers. Whoever
still writes to the old one is then not heard by the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

SHARED_MEMORY = Path('/dev/shm')
PROCESSES = Path('/proc')
SETTLED_S = 5.0
"""A younger file may belong to a participant that has made it and not locked or mapped it yet."""


def remove_stale_segments(folder: Path = SHARED_MEMORY) -> list[str]:
    """Remove this user's segments whose participant is gone; return their names."""
    removed = []
    for lock in sorted(folder.glob('fastrtps_*_el')):
        name = lock.name.removesuffix('_el')
        if not name.startswith('fastrtps_port') and _is_stale(lock):
            (folder / name).unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            removed.append(name)
    return removed


def remove_stale_ports(folder: Path = SHARED_MEMORY, processes: Path = PROCESSES) -> list[str]:
    """Remove this user's ports that nobody reads from and no process uses; return their names.

    `processes`: what lists the files that each process maps, as /proc does. Those of other users
    and of containers that share the folder are not told. Who reads from a port holds its lock,
    which is seen from everywhere; Fast DDS itself replaces a port that nobody reads from, without
    asking those who write to it.
    """
    ports = {
        port
        for port in folder.glob('fastrtps_port*')
        if not port.name.endswith(('_el', '_sl'))
        and _is_own_and_settled(port)
        and not _is_held(folder / f'{port.name}_el')
    }
    for maps in processes.glob('[0-9]*/maps') if ports else ():
        with contextlib.suppress(OSError):  # another user's, or ended meanwhile
            mapped = maps.read_text()
            ports = {port for port in ports if f'{port}\n' not in mapped}
    for port in ports:
        for name in (port.name, f'{port.name}_el', f'{port.name}_sl', f'sem.{port.name}_mutex'):
            (folder / name).unlink(missing_ok=True)
    return sorted(port.name for port in ports)


def _is_own_and_settled(path: Path) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return status.st_uid == os.geteuid() and time.time() - status.st_mtime >= SETTLED_S


def _is_stale(lock: Path) -> bool:
    return _is_own_and_settled(lock) and not _is_held(lock)


def _is_held(lock: Path) -> bool:
    """Whether a process holds a lock; not where there is none."""
    try:
        file = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
