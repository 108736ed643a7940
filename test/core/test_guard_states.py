# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The state table, cell by cell, and what each request is answered."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guard_world import HOME, GuardState, World, fr3_limits, smooth_plan

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import JointState, Outputs
from vla_deploy.core.limits import JointLimits

DISARMED, SHADOW, HOLD = GuardState.DISARMED, GuardState.SHADOW, GuardState.HOLD
ARMED, ESTOP, FAULT = GuardState.ARMED, GuardState.ESTOP_LATCHED, GuardState.FAULT


def plan_chunk(world: World, **changes: Any) -> Any:
    start = world.robot_state(world.ros_ns)[0]
    return world.chunk(smooth_plan(start, np.full(7, 0.3), 40, 0.05), **changes)


def world_in(state: GuardState, **config: Any) -> World:
    """A world whose guard has been brought into the state by its inputs."""
    world = World(GuardConfig(shadow=state is SHADOW, **config))
    world.tick()
    if state is DISARMED:
        return world
    world.tick(arm=True)
    if state is ARMED:
        world.tick(chunks=(plan_chunk(world),))
        world.ticks(60)
    elif state is ESTOP:
        world.tick(estop_request=True)
    elif state is FAULT:
        world.tick(external_fault='audit log is full')
    assert world.core.state is state
    return world


def a_chunk(world: World) -> Outputs:
    return world.tick(chunks=(plan_chunk(world),))


def plan_ended(world: World) -> Outputs:
    return world.ticks(250)


def clock_jump(world: World) -> Outputs:
    world.measure = False
    return world.jump(-3.0)


def tick_gap(world: World) -> Outputs:
    world.steady_ns += 10**9
    return world.tick()


def trip(world: World) -> Outputs:
    bad = [plan_chunk(world, period_s=-1.0) for _ in range(12)]
    for i in range(0, 12, 4):
        out = world.tick(chunks=tuple(bad[i:i + 4]))
    return out


def silence(world: World) -> Outputs:
    world.measure = False
    return world.ticks(25)


def tracking_error(world: World) -> Outputs:
    world.measure = False
    return world.stray(12, 0.5)


def external(world: World) -> Outputs:
    return world.tick(external_fault='incompatible QoS')


def second_publisher(world: World) -> Outputs:
    return world.tick(other_publishers=1)


def description(world: World) -> Outputs:
    return world.tick(description_changed=True)


def no_subscriber(world: World) -> Outputs:
    return world.tick(subscribers=0)


def session_ended(world: World) -> Outputs:
    return world.tick(chunks=(plan_chunk(world, ends_session=True),))


def disarm_and_stop(world: World) -> Outputs:
    world.tick(disarm=True)
    return world.ticks(100)


Event = Callable[[World], Outputs]
STATES = (DISARMED, SHADOW, HOLD, ARMED, ESTOP, FAULT)
SAME = None
TABLE: list[tuple[Event, tuple[GuardState | None, ...]]] = [
    (lambda w: w.tick(arm=True), (HOLD, HOLD, SAME, SAME, SAME, SAME)),
    (a_chunk, (SAME, SAME, ARMED, ARMED, SAME, SAME)),
    (plan_ended, (SAME, SAME, SAME, HOLD, SAME, SAME)),
    (trip, (SAME, SAME, SAME, HOLD, SAME, SAME)),
    (session_ended, (SAME, SAME, SAME, HOLD, SAME, SAME)),
    (tick_gap, (SAME, SAME, SAME, HOLD, SAME, SAME)),
    (clock_jump, (SAME, SAME, SAME, HOLD, SAME, SAME)),
    (silence, (FAULT, FAULT, FAULT, FAULT, SAME, SAME)),
    (second_publisher, (FAULT, FAULT, FAULT, FAULT, SAME, SAME)),
    (description, (FAULT, FAULT, FAULT, FAULT, SAME, SAME)),
    (external, (FAULT, FAULT, FAULT, FAULT, SAME, SAME)),
    # Without a command there is nothing to track and nobody who must listen.
    (tracking_error, (SAME, SAME, FAULT, FAULT, SAME, SAME)),
    (no_subscriber, (SAME, SAME, FAULT, FAULT, SAME, SAME)),
    (lambda w: w.tick(estop=True), (ESTOP, ESTOP, ESTOP, ESTOP, SAME, ESTOP)),
    (lambda w: w.tick(estop_request=True), (ESTOP, ESTOP, ESTOP, ESTOP, SAME, ESTOP)),
    (lambda w: w.tick(reset=True), (SAME, SAME, SAME, SAME, DISARMED, DISARMED)),
    (disarm_and_stop, (SAME, DISARMED, DISARMED, DISARMED, SAME, SAME)),
]
EVENT_NAMES = ['arm', 'chunk', 'plan_ended', 'trip', 'session_ended', 'tick_gap', 'clock_jump',
               'silence',
               'second_publisher', 'description', 'external', 'tracking_error', 'no_subscriber',
               'estop', 'estop_request', 'reset', 'disarm']


@pytest.mark.parametrize('column', range(len(STATES)), ids=[s.name for s in STATES])
@pytest.mark.parametrize('row', range(len(TABLE)), ids=EVENT_NAMES)
def test_when_an_event_comes_expect_the_state_of_the_table(row: int, column: int) -> None:
    event, expected = TABLE[row]
    world = world_in(STATES[column])
    if STATES[column] is SHADOW and row == 0:
        world.core.config = GuardConfig(shadow=True)
    out = event(world)
    assert out.state is (expected[column] or STATES[column])
    if out.state in (ESTOP, FAULT) and STATES[column] not in (ESTOP, FAULT):
        assert out.reason


def test_when_a_session_ends_expect_braking_in_that_tick_and_its_late_chunks_refused() -> None:
    world = world_in(ARMED)
    late = plan_chunk(world)
    out = session_ended(world)
    assert (out.state, out.reason) == (HOLD, 'session ended')
    assert [report.verdict for report in out.reports] == ['ended']
    speeds = np.abs(out.trajectory.velocity).max(axis=1)
    assert speeds[0] > 0.0
    stop_s = float((out.trajectory.end_ns - world.ros_ns) * 1e-9)
    assert stop_s <= world.config.lead_s + 3 * world.config.horizon_s
    out = world.tick(chunks=(late,))
    assert out.state is HOLD
    assert [v.rule for v in out.violations] == ['session']
    assert 'has ended' in out.violations[0].message


def test_when_another_session_ends_expect_the_running_one_to_go_on() -> None:
    world = world_in(ARMED)
    out = world.tick(chunks=(plan_chunk(world, ends_session=True, session_id='older'),))
    assert out.state is ARMED


@pytest.mark.parametrize('state', [ESTOP, FAULT])
def test_when_latched_expect_arm_and_chunks_refused_and_silence(state: GuardState) -> None:
    world = world_in(state)
    out = world.tick(arm=True)
    assert not out.answers[0].success
    assert 'reset' in out.answers[0].message
    for _ in range(10):
        out = world.tick(chunks=(plan_chunk(world),))
        assert out.trajectory is None
        assert out.state is state


@pytest.mark.parametrize('start', [HOLD, ARMED])
@pytest.mark.parametrize('cause', [{'estop': True}, {'external_fault': 'x'}])
def test_when_stopped_in_control_expect_one_braking_trajectory_in_that_step_then_none(
    start: GuardState, cause: dict[str, Any]
) -> None:
    world = world_in(start)
    speed = np.abs(world.commanded()[1]).max()
    out = world.tick(**cause)
    assert out.trajectory is not None
    stop_s = (out.trajectory.end_ns - world.ros_ns) * 1e-9
    assert stop_s <= max(world.config.horizon_s * 2, world.config.lead_s + speed / 10 + 0.01)
    for _ in range(20):
        out = world.tick()
        assert out.trajectory is None
    assert out.state in (ESTOP, FAULT)
    assert not world.robot_state(world.ros_ns + 10**9)[1].any()


def test_when_disarmed_or_in_shadow_expect_no_trajectory_even_on_a_stop() -> None:
    for state in (DISARMED, SHADOW):
        world = world_in(state)
        assert world.tick(estop=True).trajectory is None


def test_when_the_estop_is_still_live_expect_reset_and_arm_refused() -> None:
    world = world_in(HOLD)
    world.tick(estop=True)
    out = world.tick(estop=True, reset=True)
    assert not out.answers[0].success
    assert out.state is ESTOP
    assert world.tick(reset=True).state is DISARMED
    out = world.tick(arm=True, estop=True)
    assert out.state is ESTOP


def test_when_the_cause_of_a_fault_remains_expect_reset_refused_and_told_why() -> None:
    world = world_in(HOLD)
    world.tick(other_publishers=2)
    out = world.tick(other_publishers=2, reset=True)
    assert out.state is FAULT
    assert '2 other publisher' in out.answers[0].message
    assert world.tick(reset=True).state is DISARMED


def test_when_the_joint_state_is_stale_expect_reset_refused() -> None:
    world = world_in(ESTOP)
    world.measure = False
    world.ticks(40)
    assert not world.tick(reset=True).answers[0].success


def test_when_reset_expect_arming_to_be_a_second_act() -> None:
    world = world_in(FAULT)
    assert world.tick(reset=True).state is DISARMED
    assert world.ticks(5).trajectory is None
    world.judge.current = None
    assert world.tick(arm=True).state is HOLD


def test_when_no_joint_state_ever_came_expect_arm_refused_and_nothing_sent() -> None:
    world = World()
    world.measure = False
    out = world.tick(arm=True)
    assert out.state is DISARMED
    assert 'joint state' in out.answers[0].message
    assert world.ticks(100).trajectory is None
    assert out.execution.commanded_position is None


def test_when_nobody_subscribes_expect_arm_refused() -> None:
    world = world_in(DISARMED)
    out = world.tick(arm=True, subscribers=0)
    assert (out.state, out.answers[0].success) == (DISARMED, False)


@pytest.mark.parametrize(('speed', 'said'), [
    (0.0, 'armed'), (0.04, 'armed'), (0.2, 'moves at 0.2'),
])
def test_when_no_velocities_are_measured_expect_arming_by_positions_a_while_apart(
    speed: float, said: str
) -> None:
    world = World()
    answers = []
    for tick in range(25):
        now_ns = world.ros_ns + round(world.config.period_s * 1e9)
        q = HOME + speed * tick * world.config.period_s
        out = world.tick(joint_state=JointState(now_ns, world.limits.names, q), arm=True)
        answers += [answer.message for answer in out.answers]
    unknown = [answer for answer in answers if 'is not known yet' in answer]
    assert answers[: len(unknown)] == unknown
    assert len(unknown) == 10
    assert said in answers[10]


def test_when_the_robot_moves_expect_arm_refused_unless_arm_velocity_allows_it() -> None:
    for limit, state in ((0.05, DISARMED), (0.5, HOLD)):
        world = World(GuardConfig(arm_velocity=limit))
        world.measure = False
        moving = JointState(world.ros_ns, world.limits.names, HOME, np.full(7, 0.1))
        assert world.tick(joint_state=moving, arm=True).state is state


def placeholder_limits() -> JointLimits:
    joints = fr3_limits().joints
    return JointLimits.of([dataclasses.replace(joints[0], placeholder=True), *joints[1:]])


def test_when_limits_are_placeholders_expect_arm_refused_until_they_are_accepted() -> None:
    for accept, state in ((False, DISARMED), (True, HOLD)):
        world = World(GuardConfig(accept_placeholder_limits=accept), placeholder_limits())
        assert world.arm().state is state
        assert bool(world.core.activation_refusal()) is not accept


def test_when_already_in_control_expect_arm_to_change_nothing() -> None:
    world = world_in(ARMED)
    out = world.tick(arm=True)
    assert out.answers[0].success
    assert out.state is ARMED


def test_when_disarmed_on_the_move_expect_the_stop_first() -> None:
    world = world_in(ARMED)
    out = world.tick(disarm=True)
    assert out.state is HOLD
    while out.state is HOLD:
        assert out.trajectory is not None
        refused = world.tick(chunks=(plan_chunk(world),))
        assert refused.state is not ARMED
        out = refused
    assert out.state is DISARMED
    assert not world.robot_state(world.ros_ns)[1].any()
    assert world.tick().trajectory is None


def test_when_arming_while_it_still_disarms_expect_a_refusal() -> None:
    world = world_in(ARMED)
    world.tick(disarm=True)
    assert not world.tick(arm=True).answers[0].success


def test_when_in_shadow_expect_the_plan_judged_and_shown_but_not_sent() -> None:
    world = world_in(SHADOW)
    chunk = plan_chunk(world)
    out = world.tick(chunks=(chunk,))
    assert out.reports[0].verdict == 'accepted'
    for _ in range(30):
        out = world.tick()
        assert out.trajectory is None
        assert out.shadow_trajectory is not None
    assert np.abs(out.shadow_trajectory.position - HOME).max() > 0.001
    assert world.core.counters.published == 0


def test_when_disarmed_expect_chunks_judged_without_effect() -> None:
    world = world_in(DISARMED)
    out = world.tick(chunks=(plan_chunk(world),))
    assert out.reports[0].verdict == 'accepted'
    assert out.state is DISARMED
    assert not out.execution.has_plan


def test_when_states_are_numbered_expect_the_numbers_of_the_message() -> None:
    assert [s.name for s in GuardState] == ['DISARMED', 'SHADOW', 'HOLD', 'ARMED',
                                            'ESTOP_LATCHED', 'FAULT']
    assert [int(s) for s in GuardState] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize('latch', ['estop_request', 'description_changed'])
def test_when_no_joint_state_has_come_yet_expect_no_reset(latch: str) -> None:
    world = World()
    world.measure = False
    world.tick(**{latch: True})
    (answer,) = world.tick(reset=True).answers
    assert (answer.success, answer.message) == (False, 'there is no fresh joint state')
    world.measure = True
    (answer,) = world.tick(reset=True).answers
    assert answer.success
    assert world.core.state is GuardState.DISARMED


@pytest.mark.parametrize(('request_', 'shadow'), [('estop_request', False), ('disarm', True),
                                                  ('estop_request', True)])
def test_when_a_plan_is_left_for_good_expect_its_samples_counted_no_further(
    request_: str, shadow: bool
) -> None:
    world = World(GuardConfig(shadow=shadow))
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.3), 41, 0.05)),))
    world.ticks(50)
    counted = world.tick(**{request_: True}).execution.consumed_total
    assert counted > 5
    after = world.ticks(50).execution
    assert (after.consumed_total, after.next_index) == (counted, 0)


def test_when_armed_out_of_shadow_expect_the_plan_that_was_only_shown_to_move_nothing() -> None:
    world = World(GuardConfig(shadow=True))
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.3), 41, 0.05)),))
    world.ticks(20)
    assert world.tick(arm=True).state is GuardState.HOLD
    for _ in range(60):
        out = world.tick()
        assert out.state is GuardState.HOLD
        assert out.trajectory is not None
        assert not out.trajectory.velocity.any()
