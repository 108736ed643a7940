# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The whole graph in simulation: a policy that asks for nonsense, and processes that are killed."""

import contextlib
import itertools
import signal
from dataclasses import dataclass

import numpy as np
import pytest
from fr3_motion import JOINTS, LIMITS, URDF, rest_time_ns
from rclpy.action import ActionClient

from vla_deploy.pipeline.strategy import STRATEGIES
from vla_deploy.ros.conversions import time_ns
from vla_deploy_msgs.action import ExecuteInstruction
from vla_deploy_msgs.msg import GuardStatus, Violation
from vla_deploy_msgs.srv import GetActionChunk

OF_A_CHUNK = (Violation.ACTION_REFUSED, Violation.ACTION_CLAMPED)
TICK_S = 0.01
TRACKING_RAD = 0.02  # the simulated servo, and the last command, which the watcher may have missed
REPEATS = 10
# Never the same twice in a row: where the arm is already, there is no motion.
TASKS = itertools.cycle(f'reach the {colour} cube' for colour in ('red', 'blue', 'green'))
# An image of the size that the policy was trained on, as often as it asks for one.
CAMERA = {'image_rate_hz': 15.0, 'image_width': 256, 'image_height': 256}
# On a busy machine a process may be late; how late is too late is the subject of other tests.
PATIENT = {
    'image_max_age_s': 2.0,
    'joint_state_max_age_s': 2.0,
    'max_skew_s': 1.0,
    'execution_timeout_s': 2.0,
}
# A process that is killed while it holds a lock of the shared-memory transport stalls whoever
# publishes to it for a second: Fast DDS waits that long for the lock, and cannot be told otherwise.
# The robot's process may be such a publisher; its silence is the subject of other tests.
STALLS = {'joint_state_timeout_s': 4.0, 'joint_state_steady_timeout_s': 6.0}


@pytest.fixture(scope='module')
def robot(shared_graph):
    """The simulated robot with its camera and an armed guard; tests add inference."""
    shared_graph.sim_robot = shared_graph.start_sim_robot(**CAMERA, max_lag_s=5.0)
    shared_graph.guard_process = shared_graph.start_guard(
        **STALLS, log_folder=str(shared_graph.log_folder)
    )
    shared_graph.wait(lambda: shared_graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    return shared_graph


@pytest.fixture
def serve(robot):
    """Return a function that starts an inference process, which ends with the test."""
    started = []

    def start(bundle, **parameters):
        robot.policies.clear()
        robot.chunks.clear()
        started.append(robot.start_inference(bundle, **{**PATIENT, **parameters}))
        return started[-1]

    yield start
    for process in started:
        process.send(signal.SIGINT)
        robot.wait_for_exit(process)


# -- a policy that asks for 100 rad of every joint ------------------------------------------------


@dataclass(frozen=True)
class Hundred:
    """A policy behind one backend and one front; a new one of either joins the lists below."""

    backend: str
    front: str


def refused_by_guard(robot):
    """Wait for three refusals; return the rules that the guard names."""
    refused = robot.guard.chunks_refused
    robot.wait(lambda: robot.guard.chunks_refused >= refused + 3, 'three refusals')
    robot.wait(lambda: robot.chunks and robot.violations, 'what was refused, and why')
    assert {value for chunk in robot.chunks for value in chunk.data} == {100.0}
    return {v.rule for v in robot.violations if v.action in OF_A_CHUNK}


def through_topics(robot, serve, bundle, parameters):
    serve(bundle, instruction='reach the red cube', **parameters)
    return refused_by_guard(robot)


def through_the_action(robot, serve, bundle, parameters):
    serve(bundle, **parameters)
    client = ActionClient(robot.node, ExecuteInstruction, 'execute_instruction')
    robot.wait(lambda: robot.policy.lifecycle_state == 3, 'inference to be active')
    robot.wait(client.server_is_ready, 'the action server')
    sent = client.send_goal_async(ExecuteInstruction.Goal(instruction='reach the red cube'))
    robot.wait(sent.done, 'the goal to be accepted')
    rules = refused_by_guard(robot)
    result = sent.result().get_result_async()
    sent.result().cancel_goal_async()
    robot.wait(result.done, 'the end of the goal')
    assert result.result().result.chunks_refused >= 3
    client.destroy()
    return rules


def through_the_service(robot, serve, bundle, parameters):
    files = {'urdf_path': str(URDF), 'limits_path': str(LIMITS)}
    serve(bundle, **files, **parameters)
    robot.wait(lambda: robot.policy.lifecycle_state == 3, 'inference to be active')
    request = GetActionChunk.Request(instruction='reach the red cube')
    answers = []

    def verified():
        answers.append(robot.call(GetActionChunk, 'get_action_chunk', request))
        return answers[-1].error_code != GetActionChunk.Response.ERROR_OBSERVATION

    robot.wait(verified, 'an observation')
    assert answers[-1].error_code == GetActionChunk.Response.ERROR_VERIFICATION
    assert len(answers[-1].chunk.data) == 0
    return {violation.rule for violation in answers[-1].report}


BACKENDS = {
    'stub': {'stub_value': 100.0},
    'onnx_runtime': {},
    'torch_cuda': {'provider': 'cpu'},
}
FRONTS = {
    'topics': through_topics,
    'action': through_the_action,
    'service': through_the_service,
}
HUNDREDS = [Hundred(backend, front) for backend in BACKENDS for front in FRONTS]


@pytest.mark.parametrize('hundred', HUNDREDS, ids=lambda h: f'{h.backend}-{h.front}')
def test_when_the_policy_returns_100_for_every_joint_expect_no_joint_past_a_limit(
    robot, serve, hundred_bundle, hundred, record_property
):
    if hundred.backend == 'torch_cuda':
        pytest.importorskip('torch')
    robot.take_control()
    robot.forget()
    before = robot.measured()
    parameters = {'backend': hundred.backend, **BACKENDS[hundred.backend]}
    rules = FRONTS[hundred.front](robot, serve, hundred_bundle, parameters)
    assert 'start_jump' in rules
    assert rules <= {'start_jump', 'position'}
    robot.wait(lambda: robot.policy.backend == hundred.backend, 'the backend in the status')
    assert robot.wait_until_standing() == pytest.approx(before, abs=1e-3)
    assert not robot.excess().excess.any
    assert robot.guard_process.exit_code is None
    assert robot.guard.state_name == 'HOLD'
    record_property('figure', f'100 rad by {hundred.backend}: {robot.excess().excess}')


def test_when_plans_lead_over_a_limit_step_by_step_expect_the_robot_to_stop_before_it(robot):
    """Each begins where the robot is, so that no start jump hides the limit."""
    robot.take_control()
    robot.forget()
    to_lower_limit = np.linspace(0.0, -0.2, 5)[:, None] * (np.array(JOINTS) == 'fr3_joint4')
    clamped = robot.guard.chunks_clamped
    for _ in range(12):
        robot.publish_chunk(robot.measured() + to_lower_limit)
        robot.wait(lambda: robot.guard.state_name == 'ARMED', 'the plan to be taken')
        robot.wait(lambda: robot.guard.state_name == 'HOLD', 'the end of the plan')
        if robot.guard.chunks_clamped > clamped + 1:
            break
    assert not robot.excess().excess.any
    assert robot.excess().excess.position > 0.95


def test_when_the_policy_returns_what_is_not_finite_expect_refusal_by_rule_and_no_motion(
    robot, serve, infinite_bundle
):
    robot.take_control()
    robot.forget()
    before = robot.measured()
    serve(infinite_bundle, instruction='reach the red cube')
    robot.wait(lambda: 'finite' in {v.rule for v in robot.violations}, 'the violation')
    assert robot.wait_until_standing() == pytest.approx(before, abs=1e-3)


# -- strategies -----------------------------------------------------------------------------------


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_when_a_strategy_is_chosen_expect_chunks_that_follow_one_another_within_the_limits(
    robot, serve, reach_bundle, record_property, strategy
):
    robot.take_control()
    robot.forget()
    refused = robot.guard.chunks_refused
    serve(reach_bundle, instruction=next(TASKS), strategy=strategy)
    robot.wait_until_moving(0.15)
    robot.wait(lambda: len(robot.chunks) >= 5, 'five chunks')
    assert {chunk.strategy for chunk in robot.chunks} == {strategy}
    following = robot.chunks[2:]
    guided = [chunk.guided_steps for chunk in following]
    assert all(guided) if strategy == 'real_time_chunking' else not any(guided)
    if strategy == 'synchronous':
        assert {chunk.delay_steps for chunk in following} == {0}
    assert robot.guard.chunks_refused == refused
    assert not robot.excess().excess.any
    record_property(
        'figure',
        f'{strategy}: delay {robot.policy.delay_steps} samples, largest difference of a chunk to '
        f'the one before {max(chunk.difference for chunk in following):.4f} rad',
    )


# -- a goal that is cancelled ---------------------------------------------------------------------


def test_when_a_goal_is_cancelled_while_moving_expect_the_guard_to_brake_within_two_ticks(
    robot, serve, reach_bundle, record_property
):
    robot.take_control()
    robot.forget()
    serve(reach_bundle)
    client = ActionClient(robot.node, ExecuteInstruction, 'execute_instruction')
    robot.wait(lambda: robot.policy.lifecycle_state == 3, 'inference to be active')
    robot.wait(client.server_is_ready, 'the action server')
    sent = client.send_goal_async(ExecuteInstruction.Goal(instruction=next(TASKS)))
    robot.wait(sent.done, 'the goal to be accepted')
    robot.wait_until_moving(0.15)
    robot.ends.clear()
    cancelled = sent.result().cancel_goal_async()
    robot.wait(lambda: cancelled.done() and robot.ends, 'the end of the session')
    ended_ns = time_ns(robot.ends[0].sent_stamp)
    noticed_ns = wait_for_tick_in_hold(robot, ended_ns)
    went_on = [s for s in robot.executions if ended_ns < time_ns(s.header.stamp) < noticed_ns]
    assert len(went_on) <= 1
    robot.wait(lambda: robot.guard.reason == 'session ended', 'the reason')
    robot.wait_until_standing()
    assert not robot.excess().excess.any
    client.destroy()
    record_property('figure', f'cancel: braking {(noticed_ns - ended_ns) * 1e-6:.1f} ms after it')


# -- processes that are killed --------------------------------------------------------------------


def test_when_inference_is_killed_while_moving_expect_rest_within_the_braking_time(
    robot, reach_bundle, record_property
):
    """At rest within braking time and two ticks of the guard's noticing, each time.

    It notices when the last plan ends or no chunk has come for chunk_silence_s; until then the
    robot follows the plan that it was given.
    """
    noticed_s, stopped_s, deaf = [], [], []
    for _ in range(REPEATS):
        robot.take_control()
        robot.forget()
        inference = start_until_moving(robot, reach_bundle, deaf)
        assert robot.guard.state_name == 'ARMED'
        killed_ns = robot.now_ns()
        inference.kill()
        noticed_ns = wait_for_tick_in_hold(robot, killed_ns)
        robot.wait_until_standing()
        last_motion = [t for t in robot.trajectories if moves(t)][-1]
        stopped_s.append(max(0.0, (rest_time_ns(last_motion) - noticed_ns) * 1e-9))
        noticed_s.append((noticed_ns - killed_ns) * 1e-9)
        # Two ticks of lead, and knots on a grid of 1 ms.
        assert stopped_s[-1] <= braking_time_s(robot, noticed_ns) + 2 * TICK_S + 0.003
        assert not robot.excess().excess.any
        robot.check_audit_logs()
    record_property(
        'figure',
        f'kill -9 of inference, {len(stopped_s)} of {REPEATS}: noticed within '
        f'{max(noticed_s):.2f} s, at rest by command within {max(stopped_s) * 1e3:.0f} ms of that; '
        f'{len(deaf)} processes after a killed one heard nobody',
    )


def test_when_the_guard_is_killed_while_moving_expect_rest_at_the_end_of_the_published_tail(
    robot, serve, reach_bundle, record_property
):
    serve(reach_bundle)
    robot.wait(lambda: robot.policy.lifecycle_state == 3, 'inference to be active')
    tails_s, errors_rad, unheard = [], [], []
    for _ in range(REPEATS):
        tell_until_moving(robot, unheard)
        robot.guard_process.kill()
        killed_ns = robot.now_ns()
        standing = robot.wait_until_standing()
        last = robot.trajectories[-1]
        tails_s.append(max(0.0, (rest_time_ns(last) - killed_ns) * 1e-9))
        errors_rad.append(np.abs(standing - np.array(last.points[-1].positions)).max())
        assert errors_rad[-1] <= TRACKING_RAD
        assert (measured_speeds(robot) <= robot.limits.velocity).all()
        assert not robot.excess().excess.any
        robot.check_audit_logs()
        robot.guards.clear()
        robot.guard_process = robot.start_guard(
            auto_arm=False, **STALLS, log_folder=str(robot.log_folder)
        )
        robot.wait(lambda: robot.guard.lifecycle_state == 3, 'another guard')
        assert robot.trigger('inference/stop').success
    record_property(
        'figure',
        f'kill -9 of the guard, {len(tails_s)} of {REPEATS}: at rest by command within '
        f'{max(tails_s) * 1e3:.0f} ms, {max(errors_rad):.4f} rad from the end of the tail; '
        f'{len(unheard)} times the robot did not hear a new guard at first',
    )


def tell_until_moving(graph, unheard):
    """Tell the next task, and wait until the robot moves; the guard is armed within milliseconds
    of its start. Rarely the robot does not hear its first commands: it stands, and the guard ends
    in FAULT, since it does not follow. That is counted in `unheard`, and tried again."""
    for _ in range(3):
        graph.take_control()
        graph.forget()
        standing = graph.measured()
        graph.tell(next(TASKS))
        graph.wait(lambda: graph.speed() > 0.15 or faulted(graph), 'the robot to move')
        if not faulted(graph):
            return
        assert 'from its command' in graph.guard.reason
        assert np.abs(graph.measured() - standing).max() < TRACKING_RAD
        unheard.append(graph.guard.reason)
        assert graph.trigger('inference/stop').success
    raise AssertionError('the robot did not hear the guard three times in a row')


def faulted(graph):
    return graph.guard.state == GuardStatus.STATE_FAULT


# -- a slow policy; the last, for the arm goes no farther than it must -----------------------------


def test_when_a_plan_begins_later_than_retry_s_after_it_was_sent_expect_the_robot_to_move(
    robot, serve, silent_bundle
):
    robot.take_control()
    robot.forget()
    slow = {'joint_names': list(JOINTS), 'period_s': 0.5, 'execute_steps': 2, 'retry_s': 0.1}
    serve(silent_bundle, instruction=next(TASKS), **slow)
    robot.wait_until_moving(0.05)
    assert not robot.excess().excess.any


def start_until_moving(graph, bundle, deaf):
    """Start inference and wait until the robot moves; return its process.

    After a kill -9, Fast DDS may find a shared-memory port of the dead process locked, and the
    next process then hears nobody. That one is ended, counted in `deaf`, and followed by another.
    """
    for _ in range(3):
        process = graph.start_inference(bundle, instruction=next(TASKS), **PATIENT)
        with contextlib.suppress(AssertionError):
            graph.wait_until_moving(0.15, timeout_s=15.0)
            return process
        assert 'execution_state: the guard has not been heard' in process.output()
        deaf.append(process)
        process.kill()
    raise AssertionError('three processes in a row heard nobody')


def wait_for_tick_in_hold(graph, after_ns):
    """Wait until a tick after that time has found the guard in HOLD; return its time."""

    def ticks_ns():
        stamps = [(s.guard_state, time_ns(s.header.stamp)) for s in graph.executions]
        return [t for state, t in stamps if state == GuardStatus.STATE_HOLD and t > after_ns]

    graph.wait(ticks_ns, 'the guard to notice')
    return min(ticks_ns())


def braking_time_s(graph, noticed_ns):
    """Return how long the slowest joint brakes from the fastest it was told to go since then."""
    speeds = [
        np.abs(s.commanded_velocity)
        for s in graph.executions
        if abs(time_ns(s.header.stamp) - noticed_ns) <= 2.5 * TICK_S * 1e9
    ]
    return float((np.max(speeds, axis=0) / graph.limits.acceleration).max())


def moves(trajectory):
    return any(np.abs(point.velocities).max() > 0.0 for point in trajectory.points)


def measured_speeds(graph):
    """Return the largest mean speed of each joint between two joint states [joints]."""
    positions = np.array([list(state.position)[:7] for state in graph.joint_states])
    stamps_ns = np.array([time_ns(state.header.stamp) for state in graph.joint_states])
    stamps_ns, once = np.unique(stamps_ns, return_index=True)  # late ticks share a time
    return np.abs(np.diff(positions[once], axis=0) / np.diff(stamps_ns)[:, None] * 1e9).max(axis=0)
