# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Sessions: which instruction is followed, and when the next chunk is due.

A session begins with an instruction and ends with another one, or with a stop. Its chunks are
numbered from 0. The guard's execution state says how much of the last one has been consumed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

_NS_PER_S = 1e9


class InstructionError(ValueError):
    """An instruction is empty or too long."""


class GuardReadiness(enum.Enum):
    """What the guard would do with a chunk now."""

    EXECUTES = 'executes'
    REFUSES = 'refuses'
    LATCHED = 'latched'  # refuses until somebody resets it


@dataclass(frozen=True)
class Execution:
    """The part of the guard's execution state that decides when a chunk is due."""

    stamp_ns: int  # ROS time
    readiness: GuardReadiness
    state_name: str
    session_id: str
    seq: int
    has_plan: bool
    next_index: int  # first sample of the running plan that lies in the future
    consumed_total: int = 0  # samples of all plans since the guard was armed
    at_rest: bool = True  # commanded to stand still
    chunks_refused: int = 0  # by the guard, of all sessions
    guard_state: int = 0  # one of GuardStatus.STATE_*


@dataclass
class Session:
    """One instruction being followed. `max_chunks`: no more are computed; 0: no limit."""

    session_id: str
    instruction: str
    max_chunks: int = 0
    next_seq: int = 0
    newest_ran: bool = False  # the guard has been seen to execute the newest chunk
    due_index: int = 0  # sample of the newest chunk at which the next one is due
    last_sent_ns: int | None = None  # ROS time at which the newest chunk was sent
    begins_ns: int = 0  # ROS time of the first sample of the newest chunk
    observed_ns: int = 0  # ROS time of what the newest chunk was made from


class SessionCore:
    """Decides when to infer. Has no clock: every call takes ROS time."""

    def __init__(
        self,
        execute_steps: int,
        retry_s: float,
        execution_timeout_s: float,
        instruction_max_length: int,
        allow_blank_instruction: bool,
        synchronous: bool = False,
    ) -> None:
        """`synchronous`: a chunk is due only while the robot stands. The others: as the parameters
        of the same names."""
        self._synchronous = synchronous
        self._standing_since_ns: int | None = None
        self._execute_steps = execute_steps
        self._retry_ns = int(retry_s * _NS_PER_S)
        self._timeout_ns = int(execution_timeout_s * _NS_PER_S)
        self._max_length = instruction_max_length
        self._allow_blank = allow_blank_instruction
        self._execution: Execution | None = None
        self.session: Session | None = None
        self.in_flight = False

    def start(self, session_id: str, instruction: str, max_chunks: int = 0) -> None:
        """Begin a new session; raise InstructionError and change nothing if it cannot be."""
        self.check_instruction(instruction)
        self.session = Session(session_id, instruction, max_chunks, due_index=self._execute_steps)

    def check_instruction(self, instruction: str) -> None:
        """Raise InstructionError for a text that is no instruction."""
        if not instruction.strip() and not self._allow_blank:
            raise InstructionError('instruction is empty: give the text of a task')
        if len(instruction) > self._max_length:
            raise InstructionError(
                f'instruction has {len(instruction)} characters, more than {self._max_length}'
            )

    def stop(self) -> None:
        """End the session; a chunk that is being computed will not be sent."""
        self.session = None

    def on_execution(self, execution: Execution) -> None:
        """Take the guard's newest execution state."""
        self._execution = execution
        if execution.has_plan or not execution.at_rest:
            self._standing_since_ns = None
        elif self._standing_since_ns is None:
            self._standing_since_ns = execution.stamp_ns
        if self.session is not None and self._runs_newest(self.session, execution):
            self.session.newest_ran = True

    def forget_times(self) -> None:
        """After a backward jump of the clock: what was heard and sent lies in no known past."""
        self._execution = self._standing_since_ns = None
        if self.session is not None:
            self.session.last_sent_ns, self.session.observed_ns = None, 0

    def blocked_by(self, now_ns: int) -> str:
        """Return why no chunk may be sent although a session runs; empty if nothing hinders."""
        execution = self._execution
        if execution is None:
            return 'execution_state: the guard has not been heard'
        if now_ns - execution.stamp_ns > self._timeout_ns:
            age_s = (now_ns - execution.stamp_ns) / _NS_PER_S
            return f'execution_state: the guard has been silent for {age_s:.2f} s'
        if execution.readiness is not GuardReadiness.EXECUTES:
            return f'the guard is {execution.state_name}'
        return ''

    def due(self, now_ns: int) -> bool:
        """Tell whether a chunk should be computed now."""
        session, execution = self.session, self._execution
        if session is None or execution is None or self.in_flight or self.blocked_by(now_ns):
            return False
        if session.max_chunks and session.next_seq >= session.max_chunks:
            return False
        if self._synchronous and self._standing_since_ns is None:
            return False
        if session.last_sent_ns is None:
            return True
        if self._runs_newest(session, execution):
            return execution.next_index >= session.due_index
        return self.newest_over(now_ns)

    def newest_over(self, now_ns: int) -> bool:
        """Tell whether the newest chunk is not executed any more, or was never taken."""
        session, execution = self.session, self._execution
        if session is None or execution is None or session.last_sent_ns is None:
            return False
        if self._runs_newest(session, execution):
            return False
        # The guard begins a plan at its first sample; another chunk before then takes its place and
        # begins later still, so that a robot at rest would never move.
        awaited_ns = max(session.last_sent_ns, session.begins_ns)
        return session.newest_ran or now_ns - awaited_ns >= self._retry_ns

    @property
    def execution(self) -> Execution | None:
        """The guard's newest execution state; None before the first."""
        return self._execution

    def samples_ahead(self, chunk_steps: int) -> int:
        """Return how many samples of this session's running plan lie ahead."""
        session, execution = self.session, self._execution
        if session is None or execution is None or not execution.has_plan:
            return 0
        if execution.session_id != session.session_id:
            return 0
        return max(0, chunk_steps - execution.next_index)

    @property
    def _running(self) -> Session | None:
        """The session, while the guard executes its newest chunk."""
        session, execution = self.session, self._execution
        if session is None or execution is None or not self._runs_newest(session, execution):
            return None
        return session

    @staticmethod
    def _runs_newest(session: Session, execution: Execution) -> bool:
        return (
            execution.has_plan
            and execution.session_id == session.session_id
            and execution.seq == session.next_seq - 1
        )

    @property
    def observe_from_ns(self) -> int:
        """ROS time before which an observation is of no use: since when the robot stands, if
        synchronous; else that of a newer one than the running chunk was made from."""
        if self._synchronous:
            return self._standing_since_ns or 0
        running = self._running
        return 0 if running is None else running.observed_ns + 1

    @property
    def skippable_at(self) -> int | None:
        """Return the sample of the newest chunk at which an inference is due, while that runs."""
        running = self._running
        return None if running is None else running.due_index

    def skip(self) -> None:
        """Let the running chunk go on for another `execute_steps` samples."""
        if self.session is not None:
            self.session.due_index += self._execute_steps

    def sent(self, session_id: str, now_ns: int) -> int | None:
        """Number a chunk that is ready; None if its session is over and it must be dropped. Until
        `placed` says otherwise its first sample is wanted now."""
        session = self.session
        if session is None or session.session_id != session_id:
            return None
        seq = session.next_seq
        session.next_seq += 1
        session.newest_ran = False
        session.due_index = self._execute_steps
        session.last_sent_ns = session.begins_ns = now_ns
        return seq

    def placed(self, stamp_ns: int, observed_ns: int) -> None:
        """Note ROS time of the first sample of the newest chunk, and of its observation."""
        if self.session is not None:
            self.session.begins_ns, self.session.observed_ns = stamp_ns, observed_ns
