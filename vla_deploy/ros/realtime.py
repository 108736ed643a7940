# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a control loop may ask of the operating system."""

from __future__ import annotations

import gc
import os


def try_sched_fifo(priority: int) -> str:
    """Put every thread of this process under SCHED_FIFO; return why not, or an empty text.

    The middleware's threads are included: a command that waits for one of them is late all the
    same. Needs CAP_SYS_NICE or an rtprio limit.
    """
    try:
        for thread_id in os.listdir('/proc/self/task'):
            os.sched_setscheduler(int(thread_id), os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return (
            'no permission for SCHED_FIFO: allow it with '
            "'@realtime - rtprio 98' in /etc/security/limits.conf"
        )
    return ''


def calm_garbage_collector() -> None:
    """Keep what exists out of collections, so that a tick is not delayed by scanning it."""
    gc.collect()
    gc.freeze()
