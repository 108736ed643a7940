# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard said it executes, over the last seconds."""

from __future__ import annotations

from collections import deque

from vla_deploy.pipeline.session import Execution

KEPT = 1000  # 10 s of a guard with a period of 10 ms


class ExecutionLog:
    """The newest execution states, in the order of their stamps."""

    def __init__(self) -> None:
        self._heard: deque[Execution] = deque(maxlen=KEPT)

    def add(self, execution: Execution) -> None:
        """Keep a state; one older than the newest is dropped."""
        if not self._heard or execution.stamp_ns >= self._heard[-1].stamp_ns:
            self._heard.append(execution)

    def clear(self) -> None:
        """Forget everything, as after a backward jump of the clock."""
        self._heard.clear()

    @property
    def newest(self) -> Execution | None:
        """The newest state; None before the first."""
        return self._heard[-1] if self._heard else None

    def at(self, t_ns: int) -> Execution | None:
        """Return the newest state that is not later than a time; None if none is kept."""
        for execution in reversed(self._heard):
            if execution.stamp_ns <= t_ns:
                return execution
        return None
