# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The health that inference tells, from the start of its process on."""

import numpy as np
import pytest
from fake_robot import FakeRobot
from inference_waits import HOLD, next_chunk, wait_for_reason, wait_for_recovery
from rclpy.qos import DurabilityPolicy, QoSProfile

from vla_deploy_msgs.msg import PolicyStatus

EACH = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope='module')
def wrong_bundle(changed_bundle):
    """A bundle whose fixtures hold another chunk than its policy computes."""

    def change(folder):
        with np.load(folder / 'fixtures.npz') as archive:
            arrays = {name: archive[name] for name in archive.files}
        arrays['fixture0/chunk_model'] = arrays['fixture0/chunk_model'] + np.float32(0.5)
        np.savez(folder / 'fixtures.npz', **arrays)

    return changed_bundle(change)


@pytest.fixture
def started(graph):
    """Return a function that starts inference, waits until it is heard, and configures it; it
    returns whether that succeeded, and the list that every status is added to."""

    def start(bundle):
        heard = graph.listen(PolicyStatus, 'inference/status', EACH)
        graph.start_inference(bundle, autostart=False, instruction='reach')
        graph.wait(lambda: heard, 'the first status')  # none is missed from now on
        return graph.change_state('inference', 'configure'), heard

    return start


def each_once(heard):
    return list(dict.fromkeys((status.health, status.health_name) for status in heard))


def test_when_a_node_comes_up_expect_each_health_in_its_turn(graph, reach_bundle, started):
    robot = FakeRobot(graph, ['front'], guard_state=HOLD)
    image = robot.images.pop('front')
    configured, heard = started(reach_bundle)
    assert configured
    assert graph.change_state('inference', 'activate')
    graph.wait(lambda: heard[-1].health_name == 'degraded', 'that no image has come')
    assert heard[-1].reason == 'image/front: no image yet'
    assert each_once(heard) == [
        (PolicyStatus.HEALTH_INITIALIZING, 'initializing'),
        (PolicyStatus.HEALTH_LOADING, 'loading'),
        (PolicyStatus.HEALTH_WARMING, 'warming'),
        (PolicyStatus.HEALTH_READY, 'ready'),
        (PolicyStatus.HEALTH_DEGRADED, 'degraded'),
    ]
    robot.images['front'] = image
    graph.wait(lambda: heard[-1].health_name == 'ready', 'chunks to be served')
    assert heard[-1].reason == ''
    robot.leave()


def test_when_the_self_test_fails_expect_the_health_warmup_failed_to_end_the_list(
    graph, wrong_bundle, started
):
    configured, heard = started(wrong_bundle)
    assert not configured
    graph.wait(lambda: heard[-1].health_name == 'warmup_failed', 'the health warmup_failed')
    assert each_once(heard) == [
        (PolicyStatus.HEALTH_INITIALIZING, 'initializing'),
        (PolicyStatus.HEALTH_LOADING, 'loading'),
        (PolicyStatus.HEALTH_WARMING, 'warming'),
        (PolicyStatus.HEALTH_WARMUP_FAILED, 'warmup_failed'),
    ]
    assert 'over the threshold' in heard[-1].reason
    assert graph.processes[-1].exit_code is None


def test_when_the_self_test_fails_expect_warmup_failed_with_both_figures_and_no_service(
    shared_graph, wrong_bundle, refuse
):
    line = refuse(bundle=str(wrong_bundle), backend='onnx_runtime')
    assert 'over the threshold 0.0001' in line
    shared_graph.wait(
        lambda: shared_graph.policy.health_name == 'warmup_failed', 'the health warmup_failed'
    )
    assert shared_graph.policy.reason == line


def test_when_the_fixtures_cannot_be_read_expect_warmup_failed_naming_them(
    shared_graph, changed_bundle, refuse
):
    def change(folder):
        (folder / 'fixtures.npz').write_bytes(b'no archive')

    line = refuse(bundle=str(changed_bundle(change)))
    assert 'fixtures.npz' in line
    shared_graph.wait(
        lambda: shared_graph.policy.health_name == 'warmup_failed', 'the health warmup_failed'
    )


def test_when_the_prompt_loses_its_end_expect_chunks_and_a_degraded_status_that_says_so(
    shared_graph, robot, serve
):
    serve(backend='onnx_runtime', instruction='reach ' * 100)
    wait_for_reason(shared_graph, 'prompt: the text lost its end; give a shorter instruction')
    assert next_chunk(shared_graph).prompt_truncated
    shared_graph.tell('reach')
    wait_for_recovery(shared_graph)
    assert not shared_graph.chunks[-1].prompt_truncated
