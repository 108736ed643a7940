# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What makes a running guard refuse, stop or fall silent, seen on a robot that moves."""

import contextlib
import math
import signal

import numpy as np
import pytest
import rclpy
from fr3_motion import HOME, JOINTS, REPEATS, URDF, latest_rest_ns, rest_time_ns, sweep
from graph_harness import WAIT_S
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.files import read_text
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_ns
from vla_deploy_msgs.msg import GuardStatus

ARMED = GuardStatus.STATE_ARMED


@pytest.fixture
def robot(guarded_robot):
    """The simulated robot at rest with its guard in HOLD, nothing recorded yet."""
    guarded_robot.take_control()
    guarded_robot.forget()
    return guarded_robot


def rules(graph):
    return {(violation.rule, violation.joint) for violation in graph.violations}


def wait_for_state(graph, name):
    graph.wait(lambda: graph.guard.state_name == name, name)


def test_when_a_chunk_is_within_the_limits_expect_the_robot_where_it_says(robot):
    samples = sweep(robot.measured(), joint=3, distance=0.3, duration_s=1.0)
    robot.publish_chunk(samples)
    robot.wait_until_moving()
    assert robot.wait_until_standing() == pytest.approx(samples[-1], abs=0.01)
    assert not robot.excess().excess.any


def test_when_chunk_columns_come_in_another_order_expect_the_same_motion(robot):
    samples = sweep(robot.measured(), joint=3, distance=-0.3, duration_s=1.0)
    order = [6, 2, 0, 4, 1, 5, 3]
    robot.publish_chunk(samples[:, order], joint_names=[JOINTS[j] for j in order])
    robot.wait_until_moving()
    assert robot.wait_until_standing() == pytest.approx(samples[-1], abs=0.01)


def test_when_the_policy_returns_nan_expect_refusal_by_rule_and_joint_and_no_motion(robot):
    before = robot.measured()
    samples = sweep(before, joint=2, distance=0.3, duration_s=1.0)
    samples[4, 2] = math.nan
    refused = robot.guard.chunks_refused
    robot.publish_chunk(samples)
    robot.wait(lambda: ('finite', 'fr3_joint3') in rules(robot), 'the violation')
    robot.wait(lambda: robot.guard.chunks_refused == refused + 1, 'the refusal in the status')
    assert robot.guard.state_name == 'HOLD'
    assert robot.wait_until_standing() == pytest.approx(before, abs=1e-3)


def test_when_a_chunk_lacks_a_joint_expect_it_named(robot):
    samples = np.tile(robot.measured()[:6], (5, 1))
    robot.publish_chunk(samples, joint_names=list(JOINTS[:6]))
    robot.wait(lambda: ('joint_names', 'fr3_joint7') in rules(robot), 'the violation')


def stop_by_service(graph, stack):
    assert graph.trigger('guard/estop').success


def stop_by_topic(profile):
    def stop(graph, stack):
        publisher = stack.enter_context(graph.publisher(Bool, 'estop', profile))
        stack.callback(publisher.publish, Bool(data=False))  # released before it leaves
        publisher.publish(Bool(data=True))

    return stop


@pytest.mark.parametrize(
    'stop',
    [
        pytest.param(stop_by_service, id='service'),
        pytest.param(stop_by_topic(qos.ESTOP_VOLATILE), id='best_effort_volatile'),
        pytest.param(stop_by_topic(qos.ESTOP_LATCHED), id='reliable_latched'),
    ],
)
@pytest.mark.parametrize('repeat', REPEATS)
def test_when_stopped_in_an_emergency_expect_one_braking_trajectory_and_then_silence(
    robot, stop, repeat, record_property
):
    robot.move()
    with contextlib.ExitStack() as stack:
        stop(robot, stack)
        wait_for_state(robot, 'ESTOP_LATCHED')
        latched_ns = first_latched_ns(robot)
        sent = robot.guard.commands_published
        robot.wait(lambda: brakes(robot, latched_ns), 'the braking trajectory')
        robot.wait_until_standing()
        robot.wait_for_joint_states(50)
        assert robot.guard.commands_published == sent
        last = robot.trajectories[-1]
        assert robot.measured() == pytest.approx(last.points[-1].positions, abs=0.01)
        robot.check_audit_logs()
        stopped_s = (rest_time_ns(last) - latched_ns) * 1e-9
        record_property('figure', f'e-stop: commanded to rest {stopped_s * 1e3:.0f} ms after it')
        if stop is not stop_by_service:
            refused = robot.trigger('guard/reset')
            assert (refused.success, refused.message) == (
                False,
                "still active: emergency stop: 'estop' is true",
            )
    assert late_subscriber_sees(robot).state_name == 'ESTOP_LATCHED'
    assert 'reset first' in robot.trigger('guard/arm').message
    robot.wait(lambda: robot.trigger('guard/reset').success, 'a reset')
    wait_for_state(robot, 'DISARMED')
    silent_at = robot.guard.commands_published
    robot.wait_for_joint_states(20)
    assert robot.guard.commands_published == silent_at
    assert robot.trigger('guard/arm').success


def first_latched_ns(graph):
    """Return the time of the step that latched the newest emergency stop."""
    before = max(i for i, s in enumerate(graph.executions) if s.guard_state == ARMED)
    graph.wait(lambda: len(graph.executions) > before + 1, 'the execution state after it')
    return time_ns(graph.executions[before + 1].header.stamp)


def brakes(graph, since_ns):
    """Whether the last trajectory brakes as soon and as hard as it may."""
    before, last = graph.trajectories[-2:]
    return rest_time_ns(last) <= latest_rest_ns(before, since_ns, graph.limits)


def late_subscriber_sees(graph):
    """Return the status that a node gets which joins the graph only now."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=int(graph.environment['ROS_DOMAIN_ID']))
    node = rclpy.create_node('late', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard = []
    node.create_subscription(GuardStatus, 'guard/status', heard.append, qos.STATUS)
    graph.wait(lambda: executor.spin_once(timeout_sec=0.01) or heard, 'a latched status', WAIT_S)
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
    return heard[0]


def test_when_another_node_could_command_too_expect_a_fault_until_it_is_gone(robot):
    robot.move()
    intruder = robot.node.create_publisher(JointTrajectory, 'joint_trajectory', qos.COMMAND)
    wait_for_state(robot, 'FAULT')
    assert '1 other publisher(s) on the command topic' in robot.guard.reason
    assert not robot.trigger('guard/reset').success
    robot.node.destroy_publisher(intruder)
    robot.wait_until_standing()
    robot.wait(lambda: robot.trigger('guard/reset').success, 'a reset')
    wait_for_state(robot, 'DISARMED')


def test_when_the_robot_description_changes_expect_a_fault_until_it_is_as_before(robot):
    description = read_text(URDF)
    with robot.publisher(String, 'robot_description', qos.DESCRIPTION) as publisher:
        publisher.publish(String(data=description.replace('2.62', '2.0', 1)))
        wait_for_state(robot, 'FAULT')
        assert robot.guard.reason == 'the robot description changed'
        assert not robot.trigger('guard/reset').success
        publisher.publish(String(data=description))
        robot.wait(lambda: robot.trigger('guard/reset').success, 'a reset')


def test_when_joint_states_stop_while_moving_expect_a_fault_that_names_them(robot):
    robot.move()
    robot.sim_robot.send(signal.SIGSTOP)
    wait_for_state(robot, 'FAULT')
    robot.sim_robot.send(signal.SIGCONT)
    assert 'joint state' in robot.guard.reason
    assert 'old' in robot.guard.reason
    robot.wait_until_standing()


def test_when_chunks_stop_within_a_long_plan_expect_hold_and_the_silence_named(robot):
    robot.publish_chunk(sweep(robot.measured(), 0, 0.5, duration_s=6.0))
    robot.wait_until_moving()
    robot.wait(lambda: 'no chunk for' in robot.guard.reason, 'the silence to be noticed')
    assert robot.guard.state_name == 'HOLD'
    robot.wait_until_standing()
    assert 'chunk_silence' in {violation.rule for violation in robot.violations}


def test_when_deactivated_while_moving_expect_a_planned_stop_and_no_command_after_it(robot):
    robot.move()
    assert robot.change_state('guard', 'deactivate')
    try:
        wait_for_state(robot, 'DISARMED')
        standing = robot.wait_until_standing()
        sent = robot.guard.commands_published
        robot.wait_for_joint_states(50)
        assert robot.guard.commands_published == sent
        assert standing == pytest.approx(robot.trajectories[-1].points[-1].positions, abs=0.01)
        assert robot.trigger('guard/arm').message == 'the guard is not active'
        robot.publish_chunk(sweep(standing, 0, 0.3, 1.0))
        robot.wait_for_joint_states(20)
        assert robot.guard.commands_published == sent
    finally:
        assert robot.change_state('guard', 'activate')
    assert not robot.excess().excess.any


def test_when_disarmed_while_moving_expect_a_planned_stop_and_no_command_after_it(robot):
    robot.move()
    assert robot.trigger('guard/disarm').success
    wait_for_state(robot, 'DISARMED')
    robot.wait_until_standing()
    sent = robot.guard.commands_published
    robot.wait_for_joint_states(30)
    assert robot.guard.commands_published == sent


def test_when_the_guard_is_inactive_or_unconfigured_expect_status_and_no_publisher(robot):
    assert robot.change_state('guard', 'deactivate')
    wait_for_state(robot, 'DISARMED')
    assert robot.change_state('guard', 'cleanup')
    seen = len(robot.guards)
    robot.wait(lambda: len(robot.guards) > seen + 1, 'status of an unconfigured guard')
    assert (robot.guard.state_name, robot.guard.lifecycle_state) == ('DISARMED', 1)
    robot.wait(lambda: robot.count_publishers('joint_trajectory') == 0, 'no command publisher')
    assert robot.change_state('guard', 'configure')
    assert robot.change_state('guard', 'activate')
    robot.wait(lambda: robot.count_publishers('joint_trajectory') == 1, 'a command publisher')
    wait_for_state(robot, 'HOLD')  # auto_arm once after each activation
    assert robot.measured().shape == np.shape(HOME)


def test_when_shut_down_while_moving_expect_a_stop_and_no_command_publisher_left(robot):
    robot.move()
    assert robot.change_state('guard', 'active_shutdown')
    standing = robot.wait_until_standing()
    robot.wait(lambda: robot.count_publishers('joint_trajectory') == 0, 'no command publisher')
    assert standing == pytest.approx(robot.trajectories[-1].points[-1].positions, abs=0.01)
    robot.wait(lambda: robot.guard.lifecycle_state == 4, 'the finalized state in the status')
    robot.guard_process.send(signal.SIGINT)
    assert robot.wait_for_exit(robot.guard_process) == 0
