# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The audit log of a guard node: where it lies, what it begins with, what its loss leads to."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from vla_deploy import __version__
from vla_deploy.core.audit import AuditLog, AuditStatus
from vla_deploy.core.audit_config import AuditConfig
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import Inputs, Outputs
from vla_deploy.core.journal import genesis_of
from vla_deploy.core.violation import Action, Violation
from vla_deploy.ros.guard_robot import GuardedRobot

CLOSE_TIMEOUT_S = 5.0
NO_STATUS = AuditStatus(0, '', 0)


class GuardAudit:
    """The log of one configuration of a guard; without a folder there is none."""

    def __init__(
        self, node_name: str, config: AuditConfig, robot: GuardedRobot, guard: GuardConfig
    ) -> None:
        """Begin a log; raises AuditError."""
        self._config = config
        self._model = ''
        self._log: AuditLog | None = None
        if not config.log_folder:
            return
        folder = _new_folder(Path(config.log_folder).expanduser(), node_name)
        genesis = genesis_of(robot.limits, guard, robot.files, build(), robot.model_sha256)
        self._log = AuditLog(folder, config, genesis)
        self._log.start()

    @property
    def folder(self) -> str:
        """Folder of the log; empty without one."""
        return '' if self._log is None else str(self._log.folder)

    @property
    def thread_id(self) -> int | None:
        """Native id of the thread that writes the log; None without one."""
        return None if self._log is None else self._log.thread_id

    def findings(self) -> dict[str, Any]:
        """Return the fields of the next step's inputs that a loss in the log makes, by policy."""
        loss = '' if self._log is None else self._log.loss()
        if not loss:
            return {}
        if self._config.log_on_failure == 'fault':
            return {'external_fault': loss}
        return {'findings': (Violation('audit_log', Action.NOTED, loss),)}

    def step(
        self, now_ros_ns: int, now_steady_ns: int, inputs: Inputs, outputs: Outputs
    ) -> None:
        """Record a step of the core, and before it the model of a chunk that is another's."""
        if self._log is None:
            return
        for chunk in inputs.chunks:
            if chunk.model_sha256 != self._model:
                self._model = chunk.model_sha256
                self._log.event('model', now_ros_ns, model_sha256=self._model)
        self._log.step(now_ros_ns, now_steady_ns, inputs, outputs)

    def event(self, name: str, now_ros_ns: int) -> None:
        """Record a change that is not a step."""
        if self._log is not None:
            self._log.event(name, now_ros_ns)

    def status(self) -> AuditStatus:
        """Return how far the log has come."""
        return NO_STATUS if self._log is None else self._log.status()

    def close(self) -> str:
        """Write what waits and end the log; return why not, or an empty text."""
        if self._log is None or self._log.close(CLOSE_TIMEOUT_S):
            return ''
        return f'audit log {self._log.folder}: not closed within {CLOSE_TIMEOUT_S:g} s'


def build() -> dict[str, str]:
    """Return what a replay must have in common with the recording."""
    return {
        'vla_deploy': __version__,
        'python': platform.python_version(),
        'numpy': np.__version__,
        'machine': platform.machine(),
        'processor': platform.processor(),
    }


def _new_folder(base: Path, node_name: str) -> Path:
    stem = time.strftime(f'{node_name}_%Y%m%dT%H%M%SZ_{os.getpid()}', time.gmtime())
    path, count = base / stem, 1
    while path.exists():
        count += 1
        path = base / f'{stem}_{count}'
    return path
