# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A goal: an instruction to be followed until its time, its chunks or somebody's patience ends."""

from __future__ import annotations

import enum
from dataclasses import dataclass

_NS_PER_S = 1e9


class ErrorCode(enum.IntEnum):
    """Why something could not be done; the numbers of ExecuteInstruction and GetActionChunk."""

    NONE = 0
    INACTIVE = 1
    OBSERVATION = 2
    INSTRUCTION = 3
    POLICY = 4
    GUARD = 5


@dataclass(frozen=True)
class Hindrance:
    """Why no chunk can be made or sent now. `final`: waiting is of no use."""

    code: ErrorCode
    text: str
    final: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a goal ended: cancelled, max_duration, max_chunks, replaced or error. Only the latter
    has a code and a text."""

    reason: str
    code: ErrorCode = ErrorCode.NONE
    text: str = ''


CANCELLED, REPLACED = Outcome('cancelled'), Outcome('replaced')


def failed(code: ErrorCode, text: str) -> Outcome:
    """Return the outcome of a goal that ended with an error."""
    return Outcome('error', code, text)


class Goal:
    """Decides when a goal ends. Has no clock: every call takes ROS time."""

    def __init__(
        self, accepted_ns: int, max_duration_s: float, max_chunks: int, patience_s: float
    ) -> None:
        """Take limits of 0 as none. `patience_s`: how long a hindrance may last."""
        self.accepted_ns = accepted_ns
        self.max_chunks = max_chunks
        self._max_duration_ns = int(max_duration_s * _NS_PER_S)
        self._patience_ns = int(patience_s * _NS_PER_S)
        self._hindered_since_ns: int | None = None
        self._hindrance: Hindrance | None = None

    def elapsed_s(self, now_ns: int) -> float:
        """Return the time since the goal was accepted, in seconds."""
        return max(0, now_ns - self.accepted_ns) / _NS_PER_S

    def hindered(self, hindrance: Hindrance | None, now_ns: int) -> None:
        """Note what hinders the goal now; None once nothing does, as when a chunk was sent."""
        if hindrance is None:
            self._hindered_since_ns = None
        elif self._hindered_since_ns is None:
            self._hindered_since_ns = now_ns
        self._hindrance = hindrance

    def outcome(
        self, now_ns: int, chunks_sent: int, last_chunk_over: bool, computing: bool = False
    ) -> Outcome | None:
        """Return how the goal ended, or None while it goes on.

        `last_chunk_over`: the newest chunk has been executed, or the guard did not take it.
        `computing`: a chunk is being computed; how that ends decides, unless waiting is of no use.
        """
        if self._max_duration_ns and now_ns - self.accepted_ns >= self._max_duration_ns:
            return Outcome('max_duration')
        if self.max_chunks and chunks_sent >= self.max_chunks and last_chunk_over:
            return Outcome('max_chunks')
        hindrance, since_ns = self._hindrance, self._hindered_since_ns
        if hindrance is None or since_ns is None:
            return None
        if hindrance.final or (not computing and now_ns - since_ns >= self._patience_ns):
            return failed(hindrance.code, hindrance.text)
        return None
