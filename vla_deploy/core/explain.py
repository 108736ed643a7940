# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard finds in chunks that were kept: judged by the very function that it uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vla_deploy.core.chunk import Chunk
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import JointState
from vla_deploy.core.joint_watch import JointWatch
from vla_deploy.core.limits import JointLimits
from vla_deploy.core.schedule import SessionBook
from vla_deploy.core.verify import VerifyState, verify_chunk
from vla_deploy.core.violation import Violation


@dataclass(frozen=True, eq=False)
class Arrival:
    """A chunk or a joint state that came at now_ns."""

    now_ns: int
    chunk: Chunk | None = None
    joint_state: JointState | None = None


@dataclass(frozen=True)
class Explained:
    """Verdict on one chunk that came at now_ns, and every rule that it broke."""

    now_ns: int
    session_id: str
    seq: int
    verdict: str
    violations: tuple[Violation, ...]


def judge(
    arrivals: Iterable[Arrival], limits: JointLimits, config: GuardConfig
) -> Iterator[Explained]:
    """Judge each chunk against the newest joint state before it.

    As for a guard that has commanded nothing yet: the start of a plan is held against the measured
    position alone.
    """
    joints = JointWatch(limits.names, config.joint_state_timeout_s,
                        config.joint_state_steady_timeout_s, config.clock_tolerance_s,
                        limits.continuous)
    sessions = SessionBook()
    for arrival in arrivals:
        now_ns = arrival.now_ns
        if arrival.joint_state is not None:
            joints.offer(arrival.joint_state, now_ns, now_ns)
        chunk = arrival.chunk
        if chunk is None or chunk.ends_session:
            continue
        state = VerifyState(now_ns, now_ns + round(config.lead_s * 1e9), sessions, None,
                            joints.position, joints.stamp_ns)
        _, report = verify_chunk(chunk, state, limits, config)
        if report.plan is not None:
            sessions.accept(chunk.session_id, chunk.seq)
        yield Explained(now_ns, chunk.session_id, chunk.seq, report.verdict, report.violations)


def arrival_of_plan(chunk: Chunk, measured: JointState | None) -> list[Arrival]:
    """Return a chunk that comes at its own beginning, to a robot at `measured`.

    Without a measurement the robot stands where the first sample is, in the chunk's joint order.
    """
    if measured is None:
        columns = len(chunk.joint_names)
        first = chunk.data[0] if chunk.data.ndim == 2 and len(chunk.data) else np.zeros(columns)
        measured = JointState(chunk.stamp_ns, chunk.joint_names, first)
    return [Arrival(chunk.stamp_ns, chunk, measured)]
