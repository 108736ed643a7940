# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The status of inference as a diagnostic."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from vla_deploy.ros.policy_health import HEALTH_NAMES, policy_diagnostics
from vla_deploy_msgs.msg import PolicyStatus


def entry(**fields):
    (found,) = policy_diagnostics('arm_policy', PolicyStatus(**fields)).status
    return found


@pytest.mark.parametrize('health', HEALTH_NAMES)
def test_when_inference_serves_expect_ok_and_else_a_warning_or_an_error(health):
    expected = {
        PolicyStatus.HEALTH_READY: DiagnosticStatus.OK,
        PolicyStatus.HEALTH_WARMUP_FAILED: DiagnosticStatus.ERROR,
    }
    found = entry(health=health)
    assert found.level == expected.get(health, DiagnosticStatus.WARN)
    assert found.message == HEALTH_NAMES[health]


def test_when_something_is_wrong_expect_it_in_the_message_and_the_node_in_the_name():
    found = entry(health=PolicyStatus.HEALTH_DEGRADED, reason='image/front: no image yet')
    assert found.message == 'degraded: image/front: no image yet'
    assert (found.name, found.hardware_id) == ('arm_policy: inference', 'arm_policy')


def test_when_a_policy_is_served_expect_what_it_is_and_how_it_does_in_the_values():
    status = {
        'model_sha256': 'ab12', 'backend': 'onnx_runtime', 'provider': 'cpu', 'precision': 'fp32',
        'variant': 'split', 'parity_max_abs': 1.5e-6, 'parity_threshold': 1e-4,
        'instruction': 'reach', 'chunks': 7, 'failures': 2, 'latency_p50_s': 0.012,
        'latency_p99_s': 0.02, 'reason': 'slow',
    }  # fmt: skip
    values = {v.key: v.value for v in entry(health=PolicyStatus.HEALTH_READY, **status).values}
    assert values == {
        'reason': 'slow', 'model_sha256': 'ab12', 'backend': 'onnx_runtime/cpu/fp32/split',
        'parity_max_abs': '1.5e-06', 'parity_threshold': '0.0001', 'instruction': 'reach',
        'chunks': '7', 'failures': '2', 'latency_p50_s': '0.012000', 'latency_p99_s': '0.020000',
    }  # fmt: skip
