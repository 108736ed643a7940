# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's own figures, and its status as a message."""

from __future__ import annotations

from vla_deploy.core.audit import AuditStatus
from vla_deploy.core.guard import GuardCore
from vla_deploy.core.guard_io import GuardState
from vla_deploy.ros.conversions import time_msg
from vla_deploy.ros.guard_inputs import GuardInputs
from vla_deploy.ros.percentiles import DurationWindow
from vla_deploy_msgs.msg import GuardStatus

_DRIFT = 1e-4
"""Part of a period by which the clock of the timer may drift from the steady clock in a tick."""


class TickFigures:
    """How long steps and whole ticks take, and how late ticks come.

    Nobody says when the first tick is due, so the earliest phase seen is the schedule: what counts
    as lateness is the distance to the earliest of the last ticks. A first tick that was late hides
    nothing.
    """

    def __init__(self) -> None:
        self.step_time, self.tick_time = DurationWindow(), DurationWindow()
        self._phases = DurationWindow()
        self._due_ns: int | None = None
        self._earliest_ns = 0.0

    def begin_tick(self, now_steady_ns: int, period_ns: int) -> None:
        """Count a tick that begins now; whole periods without a tick are skipped, as timers do."""
        if self._due_ns is None:
            self._due_ns = now_steady_ns
        phase_ns = now_steady_ns - self._due_ns
        self._phases.add(phase_ns * 1e-9)
        self._earliest_ns = min(self._earliest_ns + _DRIFT * period_ns, phase_ns)
        skipped = int((phase_ns - self._earliest_ns) // period_ns)
        self._due_ns += (1 + skipped) * period_ns

    def lateness_s(self, rank: float) -> float:
        """Percentile of the given rank (0..100) of the lateness of ticks, in seconds."""
        earliest, at_rank = self._phases.percentiles((0, rank))
        return at_rank - earliest


def empty_status(now_ns: int, lifecycle_state: int, reason: str, fifo: bool) -> GuardStatus:
    """Return the status of a guard that is not configured."""
    status = GuardStatus(
        lifecycle_state=lifecycle_state,
        state=GuardState.DISARMED.value,
        state_name=GuardState.DISARMED.name,
        reason=reason,
        sched_fifo=fifo,
        joint_state_age_s=-1.0,
        last_transport_s=-1.0,
    )
    status.header.stamp = time_msg(now_ns)
    return status


def add_core(status: GuardStatus, core: GuardCore, now_ns: int) -> None:
    """Fill in what the core knows."""
    status.state, status.state_name = core.state.value, core.state.name
    status.reason = core.reason
    status.mode = core.config.mode
    status.estop_active = core.estop_reason != ''
    status.limits_sha256 = core.limits.sha256
    status.joint_names = list(core.limits.names)
    counters = core.counters
    status.chunks_accepted = counters.accepted
    status.chunks_clamped = counters.clamped
    status.chunks_refused = counters.refused
    status.commands_published = counters.published
    status.rule_names = list(counters.rules)
    status.rule_counts = list(counters.rules.values())
    status.worst_margin = core.worst_margin
    status.joint_state_age_s = core.joint_state_age_s(now_ns)


def add_figures(
    status: GuardStatus, inputs: GuardInputs, figures: TickFigures, audit: AuditStatus
) -> None:
    """Fill in what the process knows: transport, duration of steps, audit log."""
    status.last_transport_s = inputs.last_transport_s
    status.last_seq = inputs.last_seq
    status.step_p50_s, status.step_p95_s, status.step_p99_s, status.step_max_s = (
        figures.step_time.percentiles((50, 95, 99, 100))
    )
    status.tick_p50_s, status.tick_p99_s = figures.tick_time.percentiles((50, 99))
    status.tick_lateness_p99_s = figures.lateness_s(99)
    status.audit_head = audit.head
    status.audit_records = audit.records
    status.audit_lost = audit.lost
