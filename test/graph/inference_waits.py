# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the inference node wait for."""

from vla_deploy_msgs.msg import GuardStatus, PolicyStatus

HOLD = GuardStatus.STATE_HOLD
# On a busy machine the played robot may be late; what is too late is the subject of some tests.
PATIENT = {
    'image_max_age_s': 5.0,
    'joint_state_max_age_s': 5.0,
    'max_skew_s': 5.0,
    'execution_timeout_s': 5.0,
    'retry_s': 0.05,
}


def next_chunk(graph):
    graph.chunks.clear()
    graph.wait(lambda: graph.chunks, 'a chunk')
    return graph.chunks[-1]


def wait_for_reason(graph, *parts):
    graph.wait(
        lambda: (
            graph.policy.health == PolicyStatus.HEALTH_DEGRADED
            and all(part in graph.policy.reason for part in parts)
        ),
        f'the reason {parts}',
    )


def wait_for_recovery(graph):
    next_chunk(graph)
    graph.wait(lambda: graph.policy.health == PolicyStatus.HEALTH_READY, 'the health ready')
    assert graph.policy.reason == ''
