# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Processes that die, stall or contradict each other while the robot moves.

After each fault the robot is at rest, nothing was beyond a limit, the guard says why, and its audit
log is whole. Each is tried FAULT_REPEATS times (environment, default 1): `make faults` tries each
ten times, and with them the emergency stops of test_guard_stops.py and the kills of
test_full_graph.py.
"""

import itertools
import signal

import pytest
from fr3_motion import REPEATS, sweep
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header

from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_msg, time_ns
from vla_deploy_msgs.msg import ActionChunk

CAMERA = {'image_rate_hz': 15.0, 'image_width': 256, 'image_height': 256}
PATIENT = {
    'image_max_age_s': 4.0,
    'joint_state_max_age_s': 4.0,
    'max_skew_s': 3.0,
    'execution_timeout_s': 4.0,
}
TASKS = itertools.cycle(f'reach the {colour} cube' for colour in ('red', 'blue', 'green'))


@pytest.fixture(scope='module')
def robot(shared_graph):
    """The simulated robot with its camera and an armed guard."""
    shared_graph.sim_robot = shared_graph.start_sim_robot(**CAMERA)
    shared_graph.guard_process = shared_graph.start_guard(log_folder=str(shared_graph.log_folder))
    shared_graph.wait(lambda: shared_graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    return shared_graph


def begin(graph):
    """Bring guard and robot to HOLD at rest, with nothing heard yet."""
    graph.take_control()
    graph.forget()


def executes(graph, chunk):
    """Whether the session of a chunk was heard to be executed, now or before."""
    return any(state.session_id == chunk.session_id for state in graph.executions)


def safe_at_rest(graph):
    """At rest, neither a command nor a measurement was beyond a limit, and the log is whole."""
    graph.wait_until_standing()
    assert not graph.excess().excess.any
    graph.check_audit_logs()


@pytest.mark.parametrize('repeat', REPEATS)
def test_when_the_robot_node_is_killed_while_moving_expect_a_fault_until_it_is_back(robot, repeat):
    begin(robot)
    robot.move()
    robot.sim_robot.kill()
    robot.wait(lambda: robot.guard.state_name == 'FAULT', 'the fault')
    assert 'joint state' in robot.guard.reason or 'nobody subscribes' in robot.guard.reason
    assert not robot.excess().excess.any
    robot.sim_robot = robot.start_sim_robot(**CAMERA)
    robot.joint_states.clear()
    robot.wait_for_joint_states(20)
    begin(robot)
    robot.move()
    safe_at_rest(robot)


@pytest.mark.parametrize('repeat', REPEATS)
def test_when_joint_states_fall_silent_while_moving_expect_a_fault_that_names_them(robot, repeat):
    begin(robot)
    robot.move()
    robot.sim_robot.send(signal.SIGSTOP)
    robot.wait(lambda: robot.guard.state_name == 'FAULT', 'the fault')
    robot.sim_robot.send(signal.SIGCONT)
    assert 'joint state' in robot.guard.reason
    safe_at_rest(robot)


@pytest.mark.parametrize('repeat', REPEATS)
def test_when_inference_stands_still_for_two_seconds_expect_hold_and_then_its_chunks_again(
    robot, reach_bundle, repeat
):
    begin(robot)
    process = robot.start_inference(reach_bundle, instruction=next(TASKS), **PATIENT)
    robot.wait(lambda: robot.guard.state_name == 'ARMED', 'the first plan')
    robot.wait_until_moving(0.05)
    process.send(signal.SIGSTOP)
    stopped_ns = robot.now_ns()
    robot.wait(lambda: robot.guard.state_name == 'HOLD', 'the end of the last plan')
    assert robot.guard.reason == 'plan ended' or 'no chunk for' in robot.guard.reason
    safe_at_rest(robot)
    robot.wait(lambda: robot.now_ns() > stopped_ns + 2 * 10**9, 'two seconds')
    process.send(signal.SIGCONT)
    robot.wait(lambda: robot.guard.state_name == 'ARMED', 'its chunks to be taken again')
    process.kill()
    robot.wait(lambda: robot.guard.state_name == 'HOLD', 'the end of the last plan')
    safe_at_rest(robot)


@pytest.mark.parametrize('repeat', REPEATS)
def test_when_a_chunk_of_an_older_session_comes_expect_it_refused_and_the_motion_to_go_on(
    robot, repeat
):
    begin(robot)
    start = robot.measured()
    old = robot.publish_chunk(sweep(start, 0, 0.05, 2.0))
    robot.wait(lambda: robot.guard.state_name == 'ARMED', 'the old session')
    way = -0.1 if start[1] > 0 else 0.1
    new = robot.publish_chunk(sweep(start, 1, way, 2.0))
    robot.wait(lambda: executes(robot, new), 'the new session')
    late = robot.publish_chunk(sweep(start, 0, -0.3, 2.0), session_id=old.session_id, seq=5)
    robot.wait(lambda: 'session' in {v.rule for v in robot.violations}, 'the refusal')
    refusal = next(v for v in robot.violations if v.rule == 'session')
    assert refusal.session_id == late.session_id
    robot.wait(lambda: robot.guard.state_name == 'HOLD', 'the end of the plan')
    safe_at_rest(robot)
    assert robot.measured()[1] - start[1] == pytest.approx(way, abs=0.01)


@pytest.mark.parametrize('repeat', REPEATS)
def test_when_two_nodes_publish_chunks_expect_the_newest_session_alone_to_count(robot, repeat):
    begin(robot)
    start = robot.measured()
    other = robot.node.create_publisher(ActionChunk, 'action_chunk', qos.CHUNK)
    robot.wait(lambda: other.get_subscription_count() > 1, 'the guard to hear the other')
    inward = [-0.1 if position > 0 else 0.1 for position in start[:2]]
    first = robot.publish_chunk(sweep(start, 0, inward[0], 3.0))
    robot.wait(lambda: executes(robot, first), 'the first session')
    second = robot.publish_chunk(sweep(start, 1, inward[1], 3.0), session_id=f'other-{repeat}')
    robot.wait(lambda: executes(robot, second), 'the second session')
    refused = robot.guard.chunks_refused
    for seq in range(1, 6):
        first.seq = seq
        first.valid_until = second.valid_until = time_msg(robot.now_ns() + 10**9)
        other.publish(first)
        robot.wait(lambda count=seq: robot.guard.chunks_refused >= refused + count, 'a refusal')
    assert {v.rule for v in robot.violations} == {'session'}
    robot.node.destroy_publisher(other)
    robot.wait(lambda: robot.guard.state_name == 'HOLD', 'the end of the plan')
    safe_at_rest(robot)


@pytest.fixture
def robot_in_sim_time(graph):
    """A robot whose simulation is the clock of the guard."""
    graph.sim_robot = graph.start_sim_robot(clock='simulated')
    graph.guard_process = graph.start_guard(use_sim_time=True, log_folder=str(graph.log_folder))
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    return graph


def test_when_simulated_time_jumps_back_while_moving_expect_hold_and_the_jump_named(
    robot_in_sim_time,
):
    robot = robot_in_sim_time
    clock = robot.node.create_publisher(Clock, '/clock', qos.CLOCK)
    for _ in REPEATS:
        begin(robot)
        position = robot.measured()
        stamp = robot.joint_states[-1].header.stamp
        robot.publish_chunk(
            sweep(position, 0, -0.3 if position[0] > 0 else 0.3, 3.0),
            header=Header(stamp=stamp), observation_stamp=stamp, sent_stamp=stamp,
            valid_until=time_msg(time_ns(stamp) + 10**9),
        )
        robot.wait_until_moving()
        robot.sim_robot.send(signal.SIGSTOP)
        back = itertools.count(time_ns(robot.joint_states[-1].header.stamp) - 400_000_000, 10**6)

        def jumped(back=back):
            clock.publish(Clock(clock=time_msg(next(back))))
            return 'clock_jump' in {v.rule for v in robot.violations}

        robot.wait(jumped, 'the jump to be noticed')
        robot.wait(lambda: 'jumped back' in robot.guard.reason, 'the reason')
        robot.sim_robot.send(signal.SIGCONT)
        safe_at_rest(robot)


def test_when_simulated_time_stands_still_expect_a_fault_all_the_same(robot_in_sim_time):
    robot = robot_in_sim_time
    robot.sim_robot.send(signal.SIGSTOP)
    robot.wait(lambda: robot.guard.state_name == 'FAULT', 'the silence to be noticed')
    assert 'of steady time' in robot.guard.reason
    robot.sim_robot.send(signal.SIGCONT)
