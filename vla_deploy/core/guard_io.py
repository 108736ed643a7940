# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What goes into a step of the guard and what comes out of it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.chunk import Chunk
from vla_deploy.core.command import CommandLine
from vla_deploy.core.limits import JointLimits
from vla_deploy.core.schedule import Schedule
from vla_deploy.core.trajectory import Trajectory
from vla_deploy.core.violation import Violation


class GuardState(enum.IntEnum):
    """States of the guard; the same numbers as in GuardStatus.msg."""

    DISARMED = 1
    SHADOW = 2
    HOLD = 3
    ARMED = 4
    ESTOP_LATCHED = 5
    FAULT = 6


@dataclass(frozen=True, eq=False)
class JointState:
    """A measurement as it came: any order, extra names allowed. velocity may be None or empty."""

    stamp_ns: int
    names: tuple[str, ...]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Inputs:
    """Everything that arrived since the last step; requests are true in one step only."""

    chunks: tuple[Chunk, ...] = ()
    joint_state: JointState | None = None
    estop: bool = False
    """Level: some e-stop source (topic, lost source) is true now."""
    estop_reason: str = ''
    """With estop: which source and why, as one line."""
    estop_request: bool = False
    arm: bool = False
    disarm: bool = False
    reset: bool = False
    tighten: JointLimits | None = None
    """Limits to take in place of those in force, if they are nowhere wider."""
    subscribers: int = 1
    """Subscribers of the command topic."""
    other_publishers: int = 0
    """Publishers on the command topic besides the guard."""
    description_changed: bool = False
    """Level: the robot description differs from the one that was configured."""
    external_fault: str = ''
    """Level: a fault seen by the node (incompatible QoS, audit log), as one line; else empty."""
    findings: tuple[Violation, ...] = ()
    """Violations seen by the node in this step, to be counted and reported with the others."""


@dataclass(frozen=True)
class Answer:
    """Answer to an arm, disarm, reset or estop request, as std_srvs/Trigger wants it."""

    request: str
    success: bool
    message: str


@dataclass(frozen=True)
class ChunkReport:
    """Verdict on one chunk: accepted, clamped or refused; ended where it ends its session."""

    session_id: str
    seq: int
    verdict: str
    violations: tuple[Violation, ...]


@dataclass(frozen=True, eq=False)
class ExecutionState:
    """What is being executed at `stamp_ns`; arrays in the order of the guard's joints."""

    stamp_ns: int
    session_id: str
    seq: int
    has_plan: bool
    next_index: int
    consumed_total: int
    chunks_refused: int
    commanded_position: NDArray[np.float64] | None
    """[joints], rad or m; None before anything was commanded."""
    commanded_velocity: NDArray[np.float64] | None

    @staticmethod
    def of(
        now_ns: int, schedule: Schedule, refused: int, line: CommandLine | None
    ) -> ExecutionState:
        """What a schedule executes on a line of motion at now_ns."""
        running = schedule.running
        position, velocity = (None, None) if line is None else line.sample(now_ns)
        session_id, seq = ('', 0) if running is None else (running.session_id, running.seq)
        return ExecutionState(
            now_ns, session_id, seq, running is not None, schedule.next_index,
            schedule.consumed_total, refused, position, velocity,
        )


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a step decided; `trajectory` is to be published, `shadow_trajectory` only logged."""

    state: GuardState
    reason: str
    trajectory: Trajectory | None
    shadow_trajectory: Trajectory | None
    execution: ExecutionState
    violations: tuple[Violation, ...]
    reports: tuple[ChunkReport, ...]
    answers: tuple[Answer, ...]


@dataclass
class Counters:
    """Counts since the core was made; rules: violations of each rule."""

    accepted: int = 0
    clamped: int = 0
    refused: int = 0
    published: int = 0
    rules: dict[str, int] = field(default_factory=dict)

    def add(self, verdict: str) -> None:
        """Count the verdict on one chunk: accepted, clamped or refused."""
        setattr(self, verdict, getattr(self, verdict) + 1)

    def count(self, violations: Iterable[Violation]) -> None:
        """Add violations to the counts of their rules."""
        for violation in violations:
            self.rules[violation.rule] = self.rules.get(violation.rule, 0) + 1
