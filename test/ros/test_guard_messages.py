# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's status as a diagnostic: every figure, and a level that says how bad it is."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from vla_deploy.core.guard_io import GuardState
from vla_deploy.ros.guard_messages import diagnostics_message
from vla_deploy_msgs.msg import GuardStatus

STATUS = {
    'chunks_accepted': 1, 'chunks_clamped': 2, 'chunks_refused': 3, 'commands_published': 4,
    'worst_margin': 0.125, 'joint_state_age_s': 0.25, 'last_transport_s': 0.5,
    'step_p50_s': 0.000125, 'step_p99_s': 0.00025, 'step_max_s': 0.0005,
    'tick_p50_s': 0.00075, 'tick_p99_s': 0.0015, 'tick_lateness_p99_s': 0.001,
    'audit_head': 'abc', 'audit_records': 5, 'audit_lost': 6,
}  # fmt: skip


def diagnostic(**fields):
    status = GuardStatus(**{'state': GuardState.HOLD.value, **fields})
    (result,) = diagnostics_message('guard', status).status
    return result


def test_when_there_is_a_status_expect_each_figure_and_the_count_of_each_rule():
    result = diagnostic(**STATUS, rule_names=['velocity', 'ttl'], rule_counts=[7, 8])
    values = {entry.key: entry.value for entry in result.values}
    assert float(values.pop('velocity')) == 7
    assert float(values.pop('ttl')) == 8
    assert values.pop('reason') == values.pop('audit_head')[3:] == ''
    assert {key: float(value) for key, value in values.items()} == {
        key: value for key, value in STATUS.items() if key != 'audit_head'
    }


@pytest.mark.parametrize(('state', 'reason', 'level', 'message'), [
    (GuardState.HOLD, '', DiagnosticStatus.OK, 'HOLD'),
    (GuardState.HOLD, 'plan ended', DiagnosticStatus.WARN, 'HOLD: plan ended'),
    (GuardState.FAULT, 'x', DiagnosticStatus.ERROR, 'FAULT: x'),
    (GuardState.ESTOP_LATCHED, 'x', DiagnosticStatus.ERROR, 'ESTOP_LATCHED: x'),
])
def test_when_the_state_is_worse_expect_a_higher_level(state, reason, level, message):
    result = diagnostic(state=state.value, state_name=state.name, reason=reason)
    assert (result.level, result.message) == (level, message)
