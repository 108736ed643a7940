# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Limits that are tightened by a service while the robot moves."""

import time

import numpy as np
from fake_robot import FakeRobot
from fr3_motion import LIMITS, URDF, fr3_limits, rest_time_ns, sweep
from std_msgs.msg import String

from vla_deploy.files import read_text, read_yaml, write_yaml
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_ns


def test_when_the_file_gets_tighter_expect_it_in_force_once_the_robot_stands(graph, tmp_path):
    path = tmp_path / 'joint_limits.yaml'
    limits = read_yaml(LIMITS)
    write_yaml(path, limits)
    graph.start_sim_robot()
    graph.start_guard(limits_path=str(path))
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard in control')
    graph.move()
    before = graph.guard.limits_sha256
    assert before == fr3_limits().sha256

    limits['joint_limits']['fr3_joint4']['acceleration'] = 10.5
    write_yaml(path, limits)
    answer = graph.trigger('guard/tighten_limits')
    assert not answer.success
    assert 'joint_limits.fr3_joint4.acceleration is 10.5, wider than 10' in answer.message
    limits['joint_limits']['fr3_joint4']['accelerations'] = 3.0
    write_yaml(path, limits)
    answer = graph.trigger('guard/tighten_limits')
    assert not answer.success
    assert str(path) in answer.message
    assert 'accelerations' in answer.message
    assert graph.guard.limits_sha256 == before

    del limits['joint_limits']['fr3_joint4']['accelerations']
    for entry in limits['joint_limits'].values():
        entry['acceleration'] = 1.0
    write_yaml(path, limits)
    answer = graph.trigger('guard/tighten_limits')
    assert answer.success, answer.message
    graph.wait(lambda: graph.guard.limits_sha256 != before, 'the new limits')
    (event,) = [v for v in graph.violations if v.rule == 'limits']
    assert graph.guard.limits_sha256 in event.message
    assert graph.guard.state_name == 'HOLD'
    assert rest_time_ns(graph.trajectories[-1]) <= graph.now_ns() + 10**9
    position = graph.wait_until_standing()
    graph.publish_chunk(sweep(position, 0, 0.4 if position[0] < 0 else -0.4, 0.6))
    graph.wait(lambda: graph.guard.chunks_clamped == 1, 'what was safe before to be clamped')


def test_when_the_files_take_long_to_read_expect_the_guard_to_go_on_ticking(graph, tmp_path):
    path = tmp_path / 'joint_limits.yaml'
    path.write_text(LIMITS.read_text())
    standing(graph, limits_path=str(path))
    path.write_text(LIMITS.read_text() + f'padding: [{"0, " * 9500}0]\n')
    began_s = time.thread_time()
    read_yaml(path)
    took_s = time.thread_time() - began_s
    graph.forget()
    answer = graph.trigger('guard/tighten_limits')
    assert 'unknown key padding' in answer.message
    graph.wait(lambda: len(graph.executions) > 1, 'ticks')
    stamps = [time_ns(state.header.stamp) for state in graph.executions]
    assert np.diff(stamps).max() * 1e-9 < 0.5 * took_s


def standing(graph, **parameters):
    """Return a guard in control of a robot that publishes no description."""
    guard = graph.start_guard(**parameters)
    FakeRobot(graph)
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard in control')
    return guard


def test_when_the_first_description_comes_after_configure_and_is_tighter_expect_it_in_force(graph):
    standing(graph)
    before = graph.guard.limits_sha256
    slower = read_text(URDF).replace('velocity="2.62"', 'velocity="0.5"')
    assert slower != read_text(URDF)
    with graph.publisher(String, 'robot_description', qos.DESCRIPTION) as publisher:
        publisher.publish(String(data=slower))
        graph.wait(lambda: graph.guard.limits_sha256 != before, 'the limits of the description')
        assert graph.guard.state_name == 'HOLD'
        (event,) = [v for v in graph.violations if v.rule == 'limits']
        assert graph.guard.limits_sha256 in event.message


def test_when_the_first_description_comes_after_configure_and_is_the_same_expect_nothing(graph):
    standing(graph)
    before = graph.guard.limits_sha256
    with graph.publisher(String, 'robot_description', qos.DESCRIPTION) as publisher:
        publisher.publish(String(data=read_text(URDF)))
        graph.wait_for_joint_states(100)
    assert (graph.guard.state_name, graph.guard.limits_sha256) == ('HOLD', before)
    assert not graph.violations


def test_when_the_first_description_is_of_another_robot_expect_a_fault_and_why(graph):
    guard = standing(graph)
    with graph.publisher(String, 'robot_description', qos.DESCRIPTION) as publisher:
        publisher.publish(String(data=read_text(URDF.parent / 'ur5.urdf')))
        graph.wait(lambda: graph.guard.state_name == 'FAULT', 'a fault')
    assert graph.guard.reason == 'the robot description changed'
    assert "topic 'robot_description': " in guard.output()
    assert 'fr3_joint1' in guard.output()
