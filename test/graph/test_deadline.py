# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A deadline that cannot be held while the robot moves: no late chunk, a planned stop, recovery."""

import itertools

import numpy as np
import pytest
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters

from vla_deploy.ros.conversions import duration_s, time_ns

DEADLINE_MS, INJECTED_MS, TICK_S = 50.0, 200.0, 0.01
PATIENT = {
    'image_max_age_s': 2.0,
    'joint_state_max_age_s': 2.0,
    'max_skew_s': 1.0,
    'execution_timeout_s': 2.0,
}
TASKS = itertools.cycle(f'reach the {colour} cube' for colour in ('red', 'blue', 'green'))


@pytest.fixture
def robot(graph):
    """The simulated robot with its camera and an armed guard."""
    graph.start_sim_robot(image_rate_hz=15.0, image_width=256, image_height=256, max_lag_s=5.0)
    graph.start_guard()
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    return graph


def inject(graph, latency_ms):
    value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=latency_ms)
    request = SetParameters.Request(
        parameters=[ParameterMsg(name='inject_latency_ms', value=value)]
    )
    answer = graph.call(SetParameters, 'inference/set_parameters', request)
    assert answer.results[0].successful


def test_when_200_ms_are_injected_under_a_deadline_of_50_expect_no_late_chunk_and_a_planned_stop(
    robot, reach_bundle, record_property
):
    robot.start_inference(reach_bundle, instruction=next(TASKS), deadline_ms=DEADLINE_MS, **PATIENT)
    robot.wait_until_moving(0.15)
    robot.wait(lambda: robot.chunks, 'a chunk that was in time')
    inject(robot, INJECTED_MS)
    missed = robot.policy.deadline_misses
    injected_ns = robot.now_ns()
    robot.wait(lambda: robot.policy.deadline_misses >= missed + 5, 'misses to be counted')
    robot.wait_until_standing()
    robot.wait(lambda: robot.guard.state_name == 'HOLD', 'the guard to hold')
    # One inference may have been under way, without the latency, when it was injected.
    late = [c for c in robot.chunks if time_ns(c.sent_stamp) > injected_ns]
    assert len(late) <= 1
    slowest_s = max(duration_s(chunk.inference_time) for chunk in robot.chunks)
    assert slowest_s <= DEADLINE_MS * 1e-3 + TICK_S
    assert robot.policy.reason.startswith('deadline')
    assert robot.policy.failures == 0
    # Commands went on to the end of the plan and its tail, never zeros, never beyond a limit.
    stamps = [time_ns(t.header.stamp) for t in robot.trajectories]
    assert sum(stamp > injected_ns for stamp in stamps) > 10
    assert all(np.abs(t.points[-1].positions).max() > 0.1 for t in robot.trajectories)
    assert not robot.excess().excess.any
    misses = robot.policy.deadline_misses
    robot.forget()
    inject(robot, 0.0)
    robot.tell(next(TASKS))
    robot.wait_until_moving(0.15)
    assert not robot.excess().excess.any
    record_property(
        'figure',
        f'deadline {DEADLINE_MS:.0f} ms, {INJECTED_MS:.0f} ms injected: {misses} misses, 0 chunks '
        f'later than it; slowest chunk sent after {slowest_s * 1e3:.0f} ms; the plan ended at rest',
    )
