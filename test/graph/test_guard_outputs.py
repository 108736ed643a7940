# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A guard with several command topics: a trajectory for some joints, a stream for the others."""

import sys

import numpy as np
import pytest
from fake_robot import FakeRobot
from fr3_motion import HOME, JOINTS, guard_parameters, sweep
from graph_harness import KEEP_ALL_RELIABLE
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Float64MultiArray

from vla_deploy.core.jerk import JerkMotion
from vla_deploy.nodes.guard import GuardNode

OUTPUTS = {
    'output_topics': ['joint_trajectory', 'wrist/commands'],
    'output_types': ['trajectory', 'position_array'],
    'output_joints': ['fr3_joint3, fr3_joint1, fr3_joint2, fr3_joint4',
                      'fr3_joint7, fr3_joint6, fr3_joint5'],
}


def test_when_two_outputs_are_declared_expect_each_its_joints_in_its_order(graph):
    arrays = graph.listen(Float64MultiArray, 'wrist/commands', KEEP_ALL_RELIABLE)
    robot = FakeRobot(graph)
    graph.start_guard(**OUTPUTS, enforce_jerk=False)  # a stream cannot keep jerk
    graph.wait(lambda: graph.guards and graph.guard.state_name == 'HOLD', 'the guard in control')
    graph.wait(lambda: arrays and graph.trajectories, 'commands on both topics')
    assert list(arrays[-1].data) == pytest.approx([HOME[6], HOME[5], HOME[4]])
    graph.publish_chunk(sweep(np.array(HOME), joint=6, distance=0.1, duration_s=1.0))
    graph.wait(lambda: arrays[-1].data[0] > HOME[6] + 0.09, 'the wrist to be sent there')
    trajectory = graph.trajectories[-1]
    assert list(trajectory.joint_names) == [JOINTS[2], JOINTS[0], JOINTS[1], JOINTS[3]]
    assert list(trajectory.points[-1].positions) == pytest.approx(
        [HOME[2], HOME[0], HOME[1], HOME[3]], abs=1e-6)
    steps = np.abs(np.diff([message.data[0] for message in arrays]))
    assert steps.max() < 0.01
    robot.leave()


def test_when_outputs_leave_a_joint_out_expect_configure_to_fail_naming_it(shared_graph):
    given = {**guard_parameters(), **OUTPUTS, 'autostart': False}
    given['output_joints'] = ['fr3_joint3, fr3_joint1, fr3_joint2', OUTPUTS['output_joints'][1]]
    guard = shared_graph.add_node(GuardNode, **given)
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "'fr3_joint4' is in no output" in guard.configure_error
    finally:
        shared_graph.remove_node(guard)


def test_when_a_stream_of_positions_meets_jerk_limits_expect_configure_to_fail(shared_graph):
    given = {**guard_parameters(), **OUTPUTS, 'autostart': False}
    guard = shared_graph.add_node(GuardNode, **given)
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "'position_array' of 'wrist/commands' cannot keep jerk" in guard.configure_error
    finally:
        shared_graph.remove_node(guard)


def test_when_ruckig_is_missing_and_jerk_is_limited_expect_configure_to_fail(
    shared_graph, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'ruckig', None)
    JerkMotion.of.cache_clear()
    guard = shared_graph.add_node(GuardNode, **{**guard_parameters(), 'autostart': False})
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert 'pip install ruckig' in guard.configure_error
        assert '\n' not in guard.configure_error
    finally:
        shared_graph.remove_node(guard)
