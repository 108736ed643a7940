# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard says: violations and diagnostics as messages."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from vla_deploy.core.guard_io import GuardState
from vla_deploy.core.violation import Violation as CoreViolation
from vla_deploy.ros.conversions import time_msg
from vla_deploy.ros.diagnostics import diagnostic
from vla_deploy_msgs.msg import GuardStatus, Violation

_LEVELS = {
    GuardState.FAULT: DiagnosticStatus.ERROR,
    GuardState.ESTOP_LATCHED: DiagnosticStatus.ERROR,
}


def violation_message(violation: CoreViolation, now_ns: int, suppressed: int) -> Violation:
    """Return a violation; `suppressed` equal ones were not sent before it."""
    msg = Violation(
        session_id=violation.session_id,
        seq=violation.seq,
        rule=violation.rule,
        action=violation.action.value,
        joint=violation.joint,
        sample=violation.sample,
        value=float(violation.value),
        limit=float(violation.limit),
        unit=violation.unit,
        message=violation.message,
        suppressed=suppressed,
    )
    msg.header.stamp = time_msg(now_ns)
    return msg


def diagnostics_message(name: str, status: GuardStatus) -> DiagnosticArray:
    """Return the status as a diagnostic: ERROR in fault and e-stop, WARN with a reason."""
    level = _LEVELS.get(
        GuardState(status.state), DiagnosticStatus.WARN if status.reason else DiagnosticStatus.OK
    )
    values = {
        'reason': status.reason,
        'chunks_accepted': status.chunks_accepted,
        'chunks_clamped': status.chunks_clamped,
        'chunks_refused': status.chunks_refused,
        'commands_published': status.commands_published,
        'worst_margin': f'{status.worst_margin:.4f}',
        'joint_state_age_s': f'{status.joint_state_age_s:.4f}',
        'last_transport_s': f'{status.last_transport_s:.4f}',
        'step_p50_s': f'{status.step_p50_s:.6f}',
        'step_p99_s': f'{status.step_p99_s:.6f}',
        'step_max_s': f'{status.step_max_s:.6f}',
        'tick_p50_s': f'{status.tick_p50_s:.6f}',
        'tick_p99_s': f'{status.tick_p99_s:.6f}',
        'tick_lateness_p99_s': f'{status.tick_lateness_p99_s:.6f}',
        'audit_head': status.audit_head,
        'audit_records': status.audit_records,
        'audit_lost': status.audit_lost,
        **dict(zip(status.rule_names, status.rule_counts, strict=True)),
    }
    message = f'{status.state_name}: {status.reason}' if status.reason else status.state_name
    return diagnostic(status.header, f'{name}: guard', level, message, values)
