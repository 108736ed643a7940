# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Robots with several drivers: joint states under prefixes, a gripper of its own, vendor messages.
"""

import numpy as np
import pytest
from fr3_motion import HOME, JOINTS, LIMITS, guard_parameters, sweep
from graph_harness import KEEP_ALL_RELIABLE
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from vla_deploy.files import read_yaml, write_yaml
from vla_deploy.nodes.guard import GuardNode
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_msg

TOPICS = ('upper/joint_states', 'wrist/joint_states')
PREFIXES = ('fr3_', 'fr3_joint')


@pytest.fixture
def two_drivers(graph):
    """Joint states of four joints on one topic, of three on another, at HOME."""
    publishers = [graph.node.create_publisher(JointState, topic, qos.SENSOR) for topic in TOPICS]
    timer = None

    def publish():
        for publisher, names, prefix, values in zip(
            publishers, (JOINTS[:4], JOINTS[4:]), PREFIXES, (HOME[:4], HOME[4:]), strict=True
        ):
            msg = JointState(name=[n.removeprefix(prefix) for n in names], position=values)
            msg.header.stamp = time_msg(graph.now_ns())
            publisher.publish(msg)

    timer = graph.node.create_timer(0.02, publish)
    yield
    graph.node.destroy_timer(timer)


def without_jerk(folder):
    limits = read_yaml(LIMITS)
    for entry in limits['joint_limits'].values():
        del entry['jerk']
    write_yaml(folder / 'joint_limits.yaml', limits)
    return str(folder / 'joint_limits.yaml')


def test_when_two_drivers_report_expect_one_robot_and_a_gripper_scaled_with_hysteresis(
    graph, two_drivers, tmp_path
):
    sent = graph.listen(Float64MultiArray, 'gripper', KEEP_ALL_RELIABLE)
    graph.start_guard(
        limits_path=without_jerk(tmp_path), joint_state_topics=list(TOPICS),
        joint_state_prefixes=list(PREFIXES), gripper_joints=[JOINTS[6]],
        output_topics=['joint_trajectory', 'gripper'],
        output_types=['trajectory', 'position_array'],
        output_joints=[', '.join(JOINTS[:6]), JOINTS[6]],
        output_scales=[1.0, 10.0], output_offsets=[0.0, -1.0], output_hysteresis=[0.0, 0.02],
    )  # fmt: skip
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard in control')
    graph.wait(lambda: sent, 'a command of the gripper')
    assert sent[-1].data[0] == pytest.approx(10.0 * HOME[6] - 1.0)
    graph.publish_chunk(sweep(np.array(HOME), joint=6, distance=0.3, duration_s=1.5))
    graph.wait(lambda: sent[-1].data[0] > 10.0 * (HOME[6] + 0.27) - 1.0, 'the gripper to open')
    graph.wait(lambda: graph.guard.reason == 'plan ended', 'the plan to end')
    # It did not move as it was told, which is no fault of a gripper; and it moved in steps.
    assert [violation.rule for violation in graph.violations] == []
    values = np.array([message.data[0] for message in sent])
    steps = np.abs(np.diff(values))
    assert steps[steps > 0.0].min() > 10.0 * 0.02
    assert steps.max() < 10.0 * 0.05


@pytest.mark.parametrize(('given', 'says'), [
    ({'output_types': ['interbotix_group'], 'output_names': ['arm']},
     "'interbotix_group' of 'joint_trajectory' needs the package interbotix_xs_msgs"),
    ({'joint_state_topics': ['a', 'b'], 'joint_state_prefixes': ['x']},
     'joint_state_prefixes has 1 entries, joint_state_topics 2'),
    ({'joint_state_topics': ['a', 'a']}, 'joint_state_topics must name one topic or more'),
    ({'output_scales': [2.0]}, "'trajectory' of 'joint_trajectory' takes no scale"),
    ({'gripper_joints': ['claw']}, "joint 'claw' is not under guard"),
])
def test_when_a_robots_drivers_are_described_wrongly_expect_configure_to_fail(
    shared_graph, tmp_path, given, says
):
    parameters = {**guard_parameters(), 'autostart': False, **given,
                  'limits_path': without_jerk(tmp_path)}
    guard = shared_graph.add_node(GuardNode, **parameters)
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert says in guard.configure_error
        assert '\n' not in guard.configure_error
    finally:
        shared_graph.remove_node(guard)
