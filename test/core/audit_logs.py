# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Audit logs for tests: begun, filled with steps of a guard, and waited for."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guard_world import World

from vla_deploy.core.audit import AuditLog
from vla_deploy.core.audit_config import AuditConfig
from vla_deploy.core.audit_file import file_name, read_records
from vla_deploy.core.guard_io import Inputs
from vla_deploy.core.journal import genesis_of

WAIT_S = 30.0
FIRST = file_name(0)


def new_log(folder: Path, **config: Any) -> AuditLog:
    world = World()
    genesis = genesis_of(world.limits, world.config, {'urdf': 'a' * 64}, {'vla_deploy': '1'})
    return AuditLog(folder, AuditConfig(**config), genesis)


def write_steps(log: AuditLog, count: int) -> None:
    world = World()
    for i in range(count):
        inputs = Inputs(joint_state=world.measured(), arm=i == 1)
        world.ros_ns += 10_000_000
        world.steady_ns += 10_000_000
        log.step(world.ros_ns, world.steady_ns, inputs,
                 world.core.step(world.ros_ns, world.steady_ns, inputs))


def kinds(folder: Path) -> list[str]:
    return [record['kind'] for _, record in read_records(folder)]


def written(log: AuditLog, records: int) -> None:
    """Wait until so many records, genesis included, are in the file."""
    wait_for(lambda: log.status().records >= records)


def lost(log: AuditLog, records: int) -> None:
    wait_for(lambda: log.status().lost >= records)


def wait_for(condition: Callable[[], bool]) -> None:
    """Let the thread of the log have its turns until the condition holds."""
    end, turn = time.monotonic() + WAIT_S, threading.Event()
    while not condition():
        assert time.monotonic() < end
        turn.wait(0.001)
