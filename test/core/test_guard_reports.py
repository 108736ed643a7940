# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the running guard says: of each stop the rule, its figures and the reason; each answer."""

from collections.abc import Callable

import numpy as np
import pytest
from guard_world import HOME, GuardState, World, smooth_plan

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import Answer, JointState, Outputs
from vla_deploy.core.violation import Action

OPEN = {'start_jump': 10.0, 'trip_count': 1000, 'chunk_silence_s': 30.0}


def armed(**config: object) -> World:
    """A world that follows a long plan."""
    world = World(GuardConfig(**{**OPEN, **config}))
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.3), 100, 0.05)),))
    world.ticks(50)
    assert world.core.state is GuardState.ARMED
    return world


def bad(world: World) -> Outputs:
    return world.tick(chunks=(world.chunk(np.tile(HOME, (5, 1)), period_s=-1.0),))


def steady_gap(world: World) -> Outputs:
    world.steady_ns += 490_000_000
    return world.tick()


def clock_jump(world: World) -> Outputs:
    world.measure = False
    return world.jump(-3.0)


def silence(world: World) -> Outputs:
    return world.ticks(51)


def trip(world: World) -> Outputs:
    bad(world)
    return bad(world)


HOLDS = {
    'tick_gap': (steady_gap, {}, 0.5, 0.25, 's', '0.500 s between two ticks'),
    'clock_jump': (clock_jump, {}, 3.0, 0.0, 's', 'ROS time jumped back by 3.000 s'),
    'chunk_silence': (silence, {'chunk_silence_s': 1.0}, 1.01, 1.0, 's', 'no chunk for 1.010 s'),
    'trip': (trip, {'trip_count': 2}, 2, 2, '1', '2 chunks in a row were refused or clamped'),
}


@pytest.mark.parametrize('rule', HOLDS)
def test_when_the_guard_holds_expect_the_rule_its_figures_and_the_reason(rule: str) -> None:
    event, config, value, limit, unit, message = HOLDS[rule]
    world = armed(**config)
    out = event(world)
    told = out.violations[-1]
    assert (told.rule, told.action, told.joint, told.sample) == (rule, Action.HOLD, '', -1)
    assert (told.value, told.limit, told.unit) == (pytest.approx(value), limit, unit)
    assert told.message == message
    assert (out.state, out.reason) == (GuardState.HOLD, message)
    assert world.core.counters.rules[rule] == 1


def test_when_a_clamped_plan_falls_back_expect_the_lag_told_once() -> None:
    world = World(GuardConfig(**OPEN, max_lag_s=0.2))
    world.arm()
    ahead = HOME + np.arange(60)[:, None] * 0.05 * 4.0 * np.array([1, 0, 0, 0, 0, 0, 0])
    world.tick(chunks=(world.chunk(ahead),))
    world.ticks(150)
    (told,) = [v for o in world.outputs for v in o.violations if v.action is Action.HOLD]
    assert (told.rule, told.limit, told.unit) == ('lag', 0.2, 's')
    assert 0.2 < told.value < 0.25
    assert told.message == f'the motion is {told.value:.3f} s behind its plan'
    assert world.core.reason == told.message


def test_when_a_clamped_plan_falls_back_by_just_max_lag_s_expect_it_followed() -> None:
    world = armed()
    world.core._line._lag_ns = 500_000_000
    assert world.tick().state is GuardState.ARMED
    world.core._line._lag_ns = 500_000_001
    assert world.tick().state is GuardState.HOLD


def stale(world: World) -> Outputs:
    world.measure = False
    return world.ticks(21)


def far_off(world: World) -> Outputs:
    world.measure = False
    return world.stray(5, np.array([0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0]))


FAULTS: dict[str, tuple[Callable[[World], Outputs], str, str]] = {
    'joint_state_age': (stale, '', 'joint state is 0.210 s old, limit 0.2 s'),
    'second_publisher': (lambda w: w.tick(other_publishers=2), '',
                         '2 other publisher(s) on the command topic'),
    'description_changed': (lambda w: w.tick(description_changed=True), '',
                            'the robot description changed'),
    'external': (lambda w: w.tick(external_fault='the log is full'), '', 'the log is full'),
    'no_subscriber': (lambda w: w.tick(subscribers=0), '',
                      'nobody subscribes to the command topic'),
    'tracking_error': (far_off, 'fr3_joint3',
                       'fr3_joint3 is 0.5 rad from its command, limit 0.2'),
}


@pytest.mark.parametrize('rule', FAULTS)
def test_when_the_guard_faults_expect_the_rule_once_and_the_reason(rule: str) -> None:
    event, joint, message = FAULTS[rule]
    world = armed()
    out = event(world)
    assert [(v.rule, v.action, v.joint) for v in out.violations] == [(rule, Action.FAULT, joint)]
    assert out.violations[0].message == message
    assert (out.state, out.reason) == (GuardState.FAULT, out.violations[0].message)
    world.measure = True
    assert event(world).violations == ()


def test_when_the_robot_was_pushed_without_a_command_expect_nothing_counted_for_later() -> None:
    world = World(GuardConfig(tracking_error_ticks=2))
    world.arm()
    world.measure = False

    def pushed() -> Outputs:
        off = JointState(world.ros_ns + 10_000_000, world.limits.names, HOME + 0.5)
        return world.tick(joint_state=off)

    assert pushed().state is GuardState.HOLD
    world.tick(disarm=True)
    pushed()
    world.measure = True
    world.tick(arm=True)
    world.measure = False
    assert pushed().state is GuardState.HOLD
    assert pushed().state is GuardState.FAULT


def answer(out: Outputs) -> Answer:
    (only,) = out.answers
    return only


def test_when_asked_expect_each_request_answered_by_name_with_what_follows() -> None:
    world = World(GuardConfig())
    world.tick()
    assert answer(world.tick(disarm=True)) == Answer('disarm', True, 'disarmed')
    assert answer(world.tick(reset=True)) == Answer('reset', True, 'nothing to reset in DISARMED')
    assert answer(world.tick(arm=True)) == Answer('arm', True, 'armed: HOLD')
    assert answer(world.tick(arm=True)) == Answer('arm', True, 'already in HOLD')
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.3), 40, 0.05)),))
    world.ticks(60)
    out = world.tick(disarm=True)
    assert answer(out) == Answer('disarm', True, 'disarmed once the robot has stopped')
    assert (out.state, out.reason) == (GuardState.HOLD, 'disarming')
    assert answer(world.tick(arm=True)) == Answer('arm', False, 'still disarming')
    world.ticks(60)
    out = world.tick(estop_request=True)
    assert answer(out) == Answer('estop', True, 'emergency stop latched')
    assert out.reason == 'emergency stop'
    assert answer(world.tick(disarm=True)) == Answer(
        'disarm', False, 'ESTOP_LATCHED stays until a reset')
    assert answer(world.tick(arm=True)) == Answer(
        'arm', False, 'ESTOP_LATCHED: emergency stop; reset first')
    assert answer(world.tick(reset=True)) == Answer(
        'reset', True, 'disarmed; arm to take control')


def test_when_a_level_stops_without_a_word_expect_an_emergency_stop_told() -> None:
    world = armed()
    assert world.tick(estop=True).reason == 'emergency stop'
    refused = answer(world.tick(estop=True, reset=True))
    assert refused == Answer('reset', False, 'still active: emergency stop')
    assert world.core.estop_reason == 'emergency stop'
    assert answer(world.tick(reset=True)).success
    assert world.core.estop_reason == ''


def test_when_reset_in_the_step_that_latches_expect_the_braking_first() -> None:
    world = armed()
    out = world.tick(estop_request=True, reset=True)
    assert out.answers[1] == Answer('reset', False, 'still active: emergency stop')
    assert out.trajectory is not None
    assert answer(world.tick(reset=True)).success


def test_when_armed_anew_expect_counting_from_nothing() -> None:
    world = armed(trip_count=2)
    assert world.outputs[-1].execution.consumed_total > 0
    bad(world)
    world.tick(disarm=True)
    world.ticks(60)
    assert world.core.state is GuardState.DISARMED
    out = world.tick(arm=True)
    assert out.execution.consumed_total == 0
    assert (out.state, out.reason) == (GuardState.HOLD, '')
    assert 'trip' not in {v.rule for v in bad(world).violations}
    assert 'trip' in {v.rule for v in bad(world).violations}


def test_when_chunks_are_bad_while_disarmed_expect_none_of_them_to_count_for_the_trip() -> None:
    world = World(GuardConfig(trip_count=2))
    world.tick()
    bad(world)
    world.tick(arm=True)
    assert 'trip' not in {v.rule for v in bad(world).violations}


@pytest.mark.parametrize(('count', 'beyond'), [(4, 0), (5, 1), (7, 3)])
def test_when_many_chunks_come_at_once_expect_the_newest_four_judged(
    count: int, beyond: int
) -> None:
    world = World()
    world.arm()
    chunks = tuple(world.chunk(np.tile(HOME, (20, 1))) for _ in range(count))
    out = world.tick(chunks=chunks)
    assert [report.seq for report in out.reports] == [c.seq for c in chunks[-4:]]
    assert world.core.counters.refused == beyond
    floods = [v for v in out.violations if v.rule == 'flood']
    assert [(v.value, v.limit, v.action) for v in floods] == (
        [(count, 4, Action.REFUSED)] if beyond else [])


def test_when_ros_time_stands_still_expect_no_jump_told() -> None:
    world = armed()
    assert world.tick(0.0).violations == ()


def test_when_in_shadow_expect_a_first_plan_held_against_the_robot_and_the_next_against_the_line(
) -> None:
    """What was never sent is no command: a robot that others move may be anywhere."""
    world = World(GuardConfig(shadow=True, start_jump=0.1))
    world.arm()
    world.position = HOME + 0.3
    world.ticks(3)
    here = world.chunk(smooth_plan(HOME + 0.3, np.full(7, 0.05), 40, 0.05))
    assert world.tick(chunks=(here,)).reports[0].verdict == 'accepted'
    world.ticks(20)
    away = world.chunk(smooth_plan(HOME + 0.3 + 0.15, np.full(7, 0.05), 40, 0.05))
    world.position = HOME + 0.3 + 0.15
    report = world.tick(chunks=(away,)).reports[0]
    assert report.verdict == 'refused'
    assert 'from the commanded position' in report.violations[0].message


def test_when_in_shadow_expect_what_would_be_sent_to_go_on_along_the_plan() -> None:
    """The robot stands where it is, because nothing is sent."""
    world = World(GuardConfig(shadow=True))
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.3), 21, 0.05)),))
    out = world.ticks(80)
    assert out.shadow_trajectory is not None
    assert out.shadow_trajectory.position[0] == pytest.approx(HOME + 0.3, abs=0.05)
    assert (world.measured().position[:7] == HOME[::-1]).all()
