# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard's process needs to configure, what it says without it, and that it then sends
nothing."""

import os
import time

import numpy as np
import pytest
from fake_robot import FakeRobot
from fr3_motion import JOINTS, LIMITS, URDF, guard_parameters, sweep
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import String

from vla_deploy.files import read_text, read_yaml, write_yaml
from vla_deploy.nodes.guard import GuardNode
from vla_deploy.ros import qos

UNTOUCHED = {'urdf_path': '', 'autostart': False}


def start_without_description(graph, **parameters):
    return graph.start('guard', **{**guard_parameters(), **UNTOUCHED, **parameters})


@pytest.fixture
def limits_without_acceleration(tmp_path):
    limits = read_yaml(LIMITS)
    del limits['joint_limits']['fr3_joint3']['acceleration']
    path = tmp_path / 'joint_limits.yaml'
    write_yaml(path, limits)
    return path


def test_when_a_limit_is_missing_expect_configure_to_fail_at_once_naming_file_joint_and_key(
    graph, limits_without_acceleration
):
    graph.start_guard(autostart=False, limits_path=str(limits_without_acceleration))
    graph.lifecycle_state('guard')  # the services are there
    begin = time.monotonic()
    assert not graph.change_state('guard', 'configure')
    took_s = time.monotonic() - begin
    assert took_s < 2.0
    graph.wait(lambda: 'fr3_joint3' in graph.guard.reason, 'the reason in the status')
    assert 'acceleration' in graph.guard.reason
    assert str(limits_without_acceleration) in graph.guard.reason
    assert graph.lifecycle_state('guard') == 'unconfigured'
    assert graph.count_publishers('joint_trajectory') == 0
    assert graph.trajectories == []


def test_when_a_limit_is_missing_expect_the_process_to_end_with_one_line_and_exit_code_1(
    graph, limits_without_acceleration
):
    guard = graph.start_guard(limits_path=str(limits_without_acceleration))
    assert graph.wait_for_exit(guard) == 1
    (line,) = guard.error_lines()
    assert 'fr3_joint3' in line
    assert 'acceleration' in line
    assert graph.trajectories == []


@pytest.mark.parametrize(
    ('node', 'wrong', 'right', 'use_sim_time'),
    [
        ('guard', 'horizn_s', 'horizon_s', False),
        ('guard', 'limits_pth', 'limits_path', True),
        ('inference', 'bundel', 'bundle', True),
        ('sim_robot', 'sed', 'seed', True),
    ],
)
def test_when_a_parameter_is_unknown_expect_one_line_with_a_suggestion_and_exit_code_2(
    graph, node, wrong, right, use_sim_time
):
    process = graph.start(node, **{wrong: 1.0, 'use_sim_time': use_sim_time})
    assert graph.wait_for_exit(process) == 2
    lines = process.output().splitlines()
    assert lines == [f'error: unknown parameter {wrong!r}; did you mean {right!r}?']


@pytest.mark.parametrize(
    ('parameters', 'named'),
    [
        ({'horizon_s': 0.02}, 'horizon_s is 0.02, below lead_s + 2 * period_s'),
        ({'joint_names': ['fr3_joint1', 'elbow']}, 'elbow'),
        ({'joint_names': None}, "parameter 'joint_names' is empty"),
        ({'limits_path': '/nowhere/limits.yaml'}, '/nowhere/limits.yaml'),
        ({'limits_path': ''}, "parameter 'limits_path' is empty"),
        ({'urdf_path': '/nowhere/fr3.urdf'}, '/nowhere/fr3.urdf'),
        ({'robot_description': '<robot'}, "parameter 'robot_description'"),
        ({'simulated': False}, "parameter 'auto_arm' is for simulated robots"),
        ({'estop_topics': ['/estop/']}, "parameter 'estop_topics': '/estop/' is no name of a"),
        ({'output_topics': ['a b']}, "parameter 'output_topics': 'a b' is no name of a topic"),
        ({'joint_state_topics': ['a b']}, "parameter 'joint_state_topics': 'a b' is no name of a"),
    ],
)
def test_when_the_configuration_is_wrong_expect_configure_to_fail_naming_it(
    shared_graph, parameters, named
):
    given = {**guard_parameters(), 'autostart': False, **parameters}
    guard = shared_graph.add_node(
        GuardNode, **{name: value for name, value in given.items() if value is not None}
    )
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert named in guard.configure_error
        assert '\n' not in guard.configure_error
    finally:
        shared_graph.remove_node(guard)


def test_when_there_is_no_description_expect_failure_and_with_the_latched_one_success(graph):
    start_without_description(graph)
    assert not graph.change_state('guard', 'configure')
    graph.wait(lambda: 'no robot description' in graph.guard.reason, 'the reason in the status')
    with graph.publisher(String, 'robot_description', qos.DESCRIPTION) as publisher:
        publisher.publish(String(data=read_text(URDF)))
        graph.wait(lambda: graph.change_state('guard', 'configure'), 'the description to arrive')
    assert graph.lifecycle_state('guard') == 'inactive'
    graph.wait(lambda: list(graph.guard.joint_names) == list(JOINTS), 'the joints in the status')


def test_when_autostarted_without_a_description_expect_the_end_after_autostart_timeout(graph):
    guard = start_without_description(graph, autostart=True, autostart_timeout_s=0.2)
    assert graph.wait_for_exit(guard) == 1
    assert 'no robot description' in guard.error_lines()[0]


def test_when_the_description_comes_within_autostart_timeout_expect_the_guard_in_control(graph):
    start_without_description(graph, autostart=True, autostart_timeout_s=60.0)
    robot = FakeRobot(graph)
    graph.wait(lambda: graph.guards, 'the guard')
    assert graph.guard.state_name == 'DISARMED'
    with graph.publisher(String, 'robot_description', qos.DESCRIPTION) as publisher:
        publisher.publish(String(data=read_text(URDF)))
        graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    robot.leave()


def test_when_autostart_is_off_expect_an_unconfigured_guard_that_waits(graph):
    graph.start_guard(autostart=False)
    FakeRobot(graph)
    graph.wait(lambda: len(graph.guards) > 1, 'two statuses')
    assert graph.lifecycle_state('guard') == 'unconfigured'
    assert graph.count_publishers('joint_trajectory') == 0


def test_when_real_time_priority_is_asked_for_expect_it_or_a_line_that_says_how_to_allow_it(graph):
    guard = graph.start_guard(sched_fifo_priority=7, log_folder=str(graph.log_folder))
    graph.wait(lambda: graph.guard.lifecycle_state == 3, 'the guard to be active')
    if graph.guard.sched_fifo:
        # What begins later has none, nor has the thread of the log, which waits for disks.
        real_time = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        assert os.sched_getscheduler(guard.pid) == real_time
        assert os.sched_getparam(guard.pid).sched_priority == 7
        threads = map(int, os.listdir(f'/proc/{guard.pid}/task'))
        policies = [os.sched_getscheduler(thread) for thread in threads]
        assert policies.count(real_time) == len(policies) - 1
        assert policies.count(os.SCHED_OTHER) == 1
    else:
        assert 'no permission for SCHED_FIFO' in guard.output()


def test_when_no_real_time_priority_is_asked_for_expect_none(graph):
    guard = graph.start_guard(sched_fifo_priority=0)
    graph.wait(lambda: graph.guard.lifecycle_state == 3, 'the guard to be active')
    assert not graph.guard.sched_fifo
    assert os.sched_getscheduler(guard.pid) == os.SCHED_OTHER


@pytest.mark.parametrize(('per_s', 'published'), [(0.1, 1), (1000.0, 8)])
def test_when_equal_violations_come_faster_than_violations_per_s_expect_the_rest_counted(
    graph, per_s, published
):
    graph.start_guard(violations_per_s=per_s, trip_count=1000)
    robot = FakeRobot(graph)
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    samples = sweep(robot.position, 0, 0.1, 0.5)

    def refuse(samples, **fields):
        refused, ticks = graph.guard.chunks_refused, len(graph.executions)
        graph.publish_chunk(samples, **fields)
        graph.wait(lambda: graph.guard.chunks_refused > refused, 'the refusal')
        graph.wait(lambda: len(graph.executions) > ticks + 2, 'time to pass')

    for joint in range(len(JOINTS)):  # what is sent before the watcher is known is lost
        if not graph.violations:
            refuse(np.where(np.arange(len(JOINTS)) == joint, np.nan, samples))
    for _ in range(8):
        refuse(samples, schema_version=9)

    def told():
        return sum(v.rule == 'schema' for v in graph.violations)

    graph.wait(lambda: told() >= published, 'the violations')
    assert told() == published
    assert dict(zip(graph.guard.rule_names, graph.guard.rule_counts, strict=True))['schema'] == 8


def test_when_configured_cleaned_up_and_configured_again_expect_the_same_as_the_first_time(graph):
    graph.start_guard(autostart=False)
    robot = FakeRobot(graph)
    for _ in range(2):
        for transition in ('configure', 'activate'):
            assert graph.change_state('guard', transition)
        graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
        graph.publish_chunk(sweep(robot.position, 0, 0.1, 0.5))
        graph.wait(lambda: graph.guard.chunks_accepted == 1, 'a chunk to be accepted')
        for transition in ('deactivate', 'cleanup'):
            assert graph.change_state('guard', transition)
        graph.wait(lambda: graph.count_publishers('joint_trajectory') == 0, 'no publisher')
    assert graph.change_state('guard', 'unconfigured_shutdown')
    assert graph.lifecycle_state('guard') == 'finalized'


def test_when_joint_states_are_permuted_with_extra_names_expect_them_to_work_as_before(graph):
    robot = FakeRobot(graph)
    robot.names = ['finger', *reversed(JOINTS)]
    robot.position = [0.04, *reversed(robot.position)]
    graph.start_guard()
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    graph.wait(
        lambda: graph.executions and graph.executions[-1].commanded_position, 'a commanded position'
    )
    commanded = graph.executions[-1]
    assert list(commanded.joint_names) == list(JOINTS)
    assert list(commanded.commanded_position) == robot.position[:0:-1]


def test_when_a_joint_is_missing_from_joint_states_expect_it_named_and_no_arming(graph):
    robot = FakeRobot(graph)
    robot.names, robot.position = robot.names[:6], robot.position[:6]
    graph.start_guard()
    graph.wait(lambda: graph.violations, 'the violation')
    assert graph.violations[0].rule == 'joint_state_names'
    assert graph.violations[0].joint == 'fr3_joint7'
    graph.wait(lambda: graph.guard.lifecycle_state == 3, 'the guard to be active')
    assert not graph.trigger('guard/arm').success
    assert graph.trajectories == []
