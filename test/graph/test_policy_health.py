# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The health that inference tells, from the start of its process on."""

import numpy as np
from fake_robot import FakeRobot
from inference_waits import HOLD
from rclpy.qos import DurabilityPolicy, QoSProfile

from vla_deploy_msgs.msg import PolicyStatus

EACH = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_when_a_node_comes_up_expect_each_health_in_its_turn(graph, reach_bundle):
    heard = graph.listen(PolicyStatus, 'inference/status', EACH)
    robot = FakeRobot(graph, guard_state=HOLD)
    graph.start_inference(reach_bundle, instruction='reach')
    graph.wait(lambda: heard and heard[-1].health_name == 'degraded', 'that no image has come')
    names = [name for name in dict.fromkeys(status.health_name for status in heard)]
    expected = ['initializing', 'loading', 'warming', 'ready', 'degraded']
    assert names == [name for name in expected if name in names]  # a short one may be missed
    assert len(names) >= 3
    assert heard[-1].reason == 'image/front: no image yet'
    robot.leave()


def test_when_the_self_test_fails_expect_warmup_failed_with_both_figures_and_no_service(
    shared_graph, changed_bundle, refuse
):
    def change(folder):
        with np.load(folder / 'fixtures.npz') as archive:
            arrays = {name: archive[name] for name in archive.files}
        arrays['fixture0/chunk_model'] = arrays['fixture0/chunk_model'] + np.float32(0.5)
        np.savez(folder / 'fixtures.npz', **arrays)

    line = refuse(bundle=str(changed_bundle(change)), backend='onnx_runtime')
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
