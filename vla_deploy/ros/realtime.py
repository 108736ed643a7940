# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a control loop may ask of the operating system."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Collection


def try_sched_fifo(priority: int, spared: Collection[int | None] = ()) -> str:
    """Put the threads of this process under SCHED_FIFO; return why not, or an empty text.

    The middleware's threads are included: a command that waits for one of them is late all the
    same. Not those with the native ids `spared`, and none that begins later. Needs CAP_SYS_NICE or
    an rtprio limit.
    """
    policy, given = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority)
    try:
        for thread_id in map(int, os.listdir('/proc/self/task')):
            if thread_id not in spared:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.sched_setscheduler(thread_id, policy, given)
    except PermissionError:
        return (
            'no permission for SCHED_FIFO: allow it with '
            "'@realtime - rtprio 98' in /etc/security/limits.conf"
        )
    return ''


_HELD_S = 0.0005


def calm_interpreter() -> None:
    """Keep what exists out of the garbage collector's scans, and let a thread that another waits
    for run Python no longer than `_HELD_S`, a tenth of Python's default: a tick gives the
    interpreter away, and has to get it back, with each message that it sends."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_HELD_S)
