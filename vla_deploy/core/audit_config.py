# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the audit log, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from vla_deploy.core.parameter import parameter


@dataclass(frozen=True)
class AuditConfig:
    """Where the audit log goes, and what happens where it cannot be written."""

    log_folder: str = parameter(
        '',
        'folder in which each configure begins an audit log, a folder of its own; empty: no log',
    )
    log_rotate_bytes: int = parameter(
        64 * 2**20,
        'size at which the log goes on in another file, which carries the chain on',
        'byte',
        minimum=4096,
        maximum=2**40,
    )
    log_fsync: str = parameter(
        'every_second',
        'how often the log is forced to the disk: a loss of power takes at most what came since. '
        'every_write is slow on most disks, and fills the queue on some',
        choices=('never', 'every_second', 'every_write'),
    )
    log_queue_length: int = parameter(
        1000,
        'records that may wait for the disk; a record that finds no room is lost, and the log '
        'says how many were',
        minimum=1,
        maximum=1000000,
    )
    log_on_failure: str = parameter(
        'fault',
        'where records are lost (a full disk, a full queue): fault stops the robot, continue goes '
        'on and reports the violation audit_log',
        choices=('fault', 'continue'),
    )
