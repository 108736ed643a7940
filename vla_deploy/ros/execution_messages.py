# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard executes as ExecutionState, serialized (ros/cdr.py says why)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from vla_deploy.core.guard_io import ExecutionState, GuardState
from vla_deploy.ros.cdr import ENCAPSULATION, CdrWriter
from vla_deploy.ros.conversions import NS_PER_S

_STAMP = struct.Struct('<iI')
_FIGURES = struct.Struct('<QB3xIQQB')
"""seq, has_plan, next_index, consumed_total, chunks_refused, guard_state; begins at 8 bytes."""


class ExecutionMessage:
    """One message that is filled again each tick; built anew only when its layout changes."""

    def __init__(self, joint_names: Sequence[str]) -> None:
        self._joint_names = tuple(joint_names)
        self._built_for: tuple[str, bool] | None = None
        self._data = bytearray()
        self._figures_at = self._position_at = self._velocity_at = 0

    def fill(self, execution: ExecutionState, state: GuardState) -> bytes:
        """Return the message, to be published; its arrays are empty before the first command."""
        position, velocity = execution.commanded_position, execution.commanded_velocity
        layout = (execution.session_id, position is not None)
        if layout != self._built_for:
            self._build(*layout)
        data = self._data
        _STAMP.pack_into(data, len(ENCAPSULATION), *divmod(execution.stamp_ns, NS_PER_S))
        _FIGURES.pack_into(data, self._figures_at, execution.seq, execution.has_plan,
                           execution.next_index, execution.consumed_total,
                           execution.chunks_refused, state)
        if position is not None and velocity is not None:
            size = 8 * len(position)
            for at, values in ((self._position_at, position), (self._velocity_at, velocity)):
                data[at:at + size] = values.astype('<f8', copy=False).tobytes()
        return bytes(data)

    def _build(self, session_id: str, commanded: bool) -> None:
        size = 8 * len(self._joint_names)
        numbers = np.zeros(len(self._joint_names)) if commanded else None
        writer = CdrWriter()
        for _ in range(2):  # header.stamp
            writer.number('I', 0)
        writer.text('')  # header.frame_id
        writer.text(session_id)
        writer.number('Q', 0)
        self._figures_at = len(writer) - 8
        for kind in '?IQQB':
            writer.number(kind, 0)
        writer.texts(self._joint_names)
        writer.doubles(numbers)
        self._position_at = len(writer) - size
        writer.doubles(numbers)
        self._velocity_at = len(writer) - size
        self._data, self._built_for = writer.take(), (session_id, commanded)
