# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Joint states good and bad, clocks, and each parameter that no other test turns."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from guard_world import HOME, GuardState, World, smooth_plan

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import JointState
from vla_deploy.core.limits import LimitsError
from vla_deploy.core.parameter import ParameterError, config_from_mapping, parameters_of


def run(ticks: int = 30, **config: Any) -> World:
    """A world some ticks into a smooth plan."""
    world = World(GuardConfig(**config))
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.5), 41, 0.05)),))
    world.ticks(ticks)
    return world


def test_when_joint_states_are_permuted_and_wider_expect_the_same_arming_point() -> None:
    world = World()
    names = ('finger', *world.limits.names[::-1])
    world.measure = False
    state = JointState(world.ros_ns, names, np.array([9.0, *HOME[::-1]]), np.zeros(8))
    world.tick(joint_state=state, arm=True)
    assert (world.commanded()[0] == HOME).all()


def test_when_the_order_of_names_changes_expect_them_mapped_again() -> None:
    world = World()
    world.tick()
    world.measure = False
    order = [3, 1, 0, 2, 6, 5, 4]
    names = tuple(world.limits.names[i] for i in order)
    world.tick(joint_state=JointState(world.ros_ns, names, HOME[order]), arm=True)
    assert (world.commanded()[0] == HOME).all()


@pytest.mark.parametrize(('change', 'rule', 'joint'), [
    ({'names': ('fr3_joint1', 'x')}, 'joint_state_names', 'fr3_joint2'),
    ({'names': ('fr3_joint1', 'fr3_joint1')}, 'joint_state_names', 'fr3_joint1'),
    ({'position': np.zeros(3)}, 'joint_state_size', ''),
    ({'position': np.array([0, 0, np.nan, 0, 0, 0, 0])}, 'joint_state_finite', 'fr3_joint3'),
    ({'position': np.array([0, np.inf, 0, 0, 0, 0, 0])}, 'joint_state_finite', 'fr3_joint2'),
    ({'stamp_ns': 2 * 10**18}, 'joint_state_stamp', ''),
])
def test_when_a_joint_state_is_bad_expect_it_named_once_and_then_stale(
    change: dict[str, Any], rule: str, joint: str
) -> None:
    world = World()
    world.arm()
    world.measure = False
    for _ in range(25):
        good = JointState(world.ros_ns, world.limits.names, HOME)
        out = world.tick(joint_state=dataclasses.replace(good, **change))
    found = [v for o in world.outputs for v in o.violations if v.rule == rule]
    assert [v.joint for v in found] == [joint]
    assert out.state is GuardState.FAULT
    assert 'joint state' in out.reason


def test_when_one_measurement_is_nan_expect_the_one_before_to_count() -> None:
    world = World()
    world.arm()
    bad = JointState(world.ros_ns, world.limits.names, np.full(7, np.nan))
    assert world.tick(joint_state=bad).state is GuardState.HOLD
    assert world.ticks(5).state is GuardState.HOLD


def ticks_to_fault(world: World, limit: int = 400) -> int:
    for i in range(limit):
        if world.tick().state is GuardState.FAULT:
            return i
    raise AssertionError('no fault')


def test_when_joint_state_timeout_s_is_longer_expect_the_fault_later() -> None:
    taken = []
    for timeout in (0.1, 0.4):
        world = run(joint_state_timeout_s=timeout)
        world.measure = False
        taken.append(ticks_to_fault(world))
    assert taken[0] < 12
    assert 38 < taken[1] < 42


@pytest.mark.parametrize('timeout', [0.3, 0.8])
def test_when_the_clock_stands_still_expect_the_steady_limit_to_fault(timeout: float) -> None:
    world = run(joint_state_steady_timeout_s=timeout)
    world.measure = False
    steps = 0
    while world.core.state is not GuardState.FAULT:
        steps += 1
        world.steady_ns += 10_000_000
        world.tick(0.0)
        assert steps < 200
    assert timeout - 0.02 < steps * 0.01 < timeout + 0.02


@pytest.mark.parametrize(('limit', 'state'), [(0.1, GuardState.FAULT), (0.4, GuardState.ARMED)])
def test_when_the_robot_lags_expect_tracking_error_to_decide(
    limit: float, state: GuardState
) -> None:
    assert lagging(tracking_error=limit).state is state


@pytest.mark.parametrize(('ticks', 'state'), [(3, GuardState.FAULT), (50, GuardState.ARMED)])
def test_when_the_robot_lags_expect_tracking_error_ticks_to_decide(
    ticks: int, state: GuardState
) -> None:
    assert lagging(tracking_error=0.1, tracking_error_ticks=ticks).state is state


def lagging(**config: Any) -> Any:
    """20 ticks with a measurement 0.2 rad off."""
    world = run(**config)
    world.measure = False
    for _ in range(20):
        q, _ = world.robot_state(world.ros_ns)
        out = world.tick(joint_state=JointState(world.ros_ns, world.limits.names, q + 0.2))
    if out.state is GuardState.FAULT:
        assert 'fr3_joint' in out.reason
    return out


def test_when_a_measurement_is_a_little_old_expect_it_held_against_the_command_of_then() -> None:
    world = World(GuardConfig(tracking_error=0.005, tracking_error_ticks=1))
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.5), 41, 0.05)),))
    world.measure = False
    history = []
    for _ in range(150):
        history.append((world.ros_ns, world.robot_state(world.ros_ns)[0]))
        stamp, q = history[max(0, len(history) - 10)]
        assert world.tick(joint_state=JointState(stamp, world.limits.names, q)).state in (
            GuardState.ARMED, GuardState.HOLD)


def test_when_the_robot_is_beside_its_command_expect_a_plan_held_against_both() -> None:
    for offset, refused_for in ((0.04, ''), (0.12, 'commanded'), (-0.08, 'measured')):
        world = World(GuardConfig(start_jump=0.1, tracking_error=0.2))
        world.arm()
        world.stray(5, 0.05)
        here = world.chunk(smooth_plan(HOME + offset, np.full(7, 0.05), 40, 0.05))
        beside = JointState(here.stamp_ns, world.limits.names, HOME + 0.05)
        report = world.tick(joint_state=beside, chunks=(here,)).reports[0]
        assert report.verdict == ('refused' if refused_for else 'accepted')
        assert all(refused_for in violation.message for violation in report.violations)


def test_when_a_plan_is_for_later_expect_it_to_run_from_the_tick_before_its_splice() -> None:
    world = World()
    world.arm()
    now_ns = world.ros_ns + round(world.config.period_s * 1e9)
    begin_ns = now_ns + round((world.config.lead_s + 10.5 * world.config.period_s) * 1e9)
    data = smooth_plan(HOME, np.full(7, 0.05), 40, 0.05)
    world.tick(chunks=(world.chunk(data, stamp_ns=begin_ns),))
    runs = [world.tick().execution.has_plan for _ in range(12)]
    assert runs == [False] * 9 + [True] * 3


@pytest.mark.parametrize(('gap', 'state'), [(0.05, GuardState.HOLD), (1.0, GuardState.ARMED)])
def test_when_ticks_are_apart_expect_tick_gap_s_to_decide(gap: float, state: GuardState) -> None:
    world = run(tick_gap_s=gap)
    assert world.tick(0.08).state is state


@pytest.mark.parametrize(('silence', 'state'), [(0.5, GuardState.HOLD), (5.0, GuardState.ARMED)])
def test_when_no_chunk_comes_expect_chunk_silence_s_to_decide(
    silence: float, state: GuardState
) -> None:
    assert run(80, chunk_silence_s=silence).core.state is state


def test_when_lead_s_is_longer_expect_commands_to_change_later() -> None:
    first = []
    for lead in (0.01, 0.05):
        world = run(95, lead_s=lead)
        before = world.outputs[-1].trajectory
        after = world.tick(disarm=True).trajectory
        t = world.ros_ns
        while np.abs(before.state(t)[0] - after.state(t)[0]).max() < 1e-9:
            t += 1_000_000
        first.append((t - world.ros_ns) * 1e-9)
    assert first[0] == pytest.approx(0.011, abs=0.0035)
    assert first[1] == pytest.approx(0.051, abs=0.0035)


def test_when_horizon_s_is_longer_expect_more_of_the_plan_published() -> None:
    ends = []
    for horizon in (0.08, 0.5):
        world = run(95, horizon_s=horizon)
        ends.append((world.outputs[-1].trajectory.end_ns - world.ros_ns) * 1e-9)
    assert ends[0] < 0.25
    assert ends[1] > 0.5


def test_when_period_s_is_longer_expect_longer_steps_of_the_limiter() -> None:
    speeds = []
    for period in (0.005, 0.02):
        world = World(GuardConfig(period_s=period, start_jump=10.0, join_window_s=0.02))
        world.arm()
        world.tick(chunks=(world.chunk(np.tile(HOME + 0.5, (40, 1))),))
        out = world.tick()
        speeds.append(float(np.abs(out.trajectory.velocity).max()))
    assert speeds == pytest.approx([10.0 * 0.01, 10.0 * 0.04], rel=1e-3)


def test_when_join_window_s_is_short_expect_the_plan_joined_later_or_never() -> None:
    joined = []
    for window in (0.02, 0.5):
        world = World(GuardConfig(join_window_s=window))
        world.arm()
        data = np.tile(HOME + 0.2, (60, 1)) + 0.05 * np.arange(60)[:, None] * 0.2
        world.tick(chunks=(world.chunk(data, 0.1),))
        on_plan = [world.tick() and world.core._line.on_plan() for _ in range(300)]
        joined.append(on_plan.index(True) if True in on_plan else 300)
    assert joined[1] < joined[0]


def test_when_clock_tolerance_s_allows_it_expect_a_stamp_ahead_taken() -> None:
    for tolerance, state in ((0.01, GuardState.DISARMED), (0.1, GuardState.HOLD)):
        world = World(GuardConfig(clock_tolerance_s=tolerance))
        world.measure = False
        stamp_ns = world.ros_ns + 60_000_000
        ahead = JointState(stamp_ns, world.limits.names, HOME, np.zeros(7))
        assert world.tick(joint_state=ahead, arm=True).state is state


def test_when_the_clock_jumps_back_expect_hold_and_the_plan_dropped() -> None:
    world = run(95)
    out = world.jump(-2.0)
    assert out.state is GuardState.HOLD
    assert not out.execution.has_plan
    assert any(v.rule == 'clock_jump' for v in out.violations)
    world.ticks(60)
    assert world.core.state is GuardState.HOLD
    assert not world.commanded()[1].any()


def test_when_the_horizon_is_too_short_expect_both_parameters_named() -> None:
    with pytest.raises(ParameterError, match='horizon_s.*lead_s'):
        GuardConfig(horizon_s=0.03, lead_s=0.02)


def test_when_every_parameter_is_listed_expect_each_described_and_given_a_unit_or_bounds() -> None:
    for parameter in parameters_of(GuardConfig):
        assert parameter.description
        assert parameter.python_type in (bool, str, list[str]) or parameter.minimum is not None
    assert config_from_mapping(GuardConfig, {'lead_s': 0.03}).lead_s == 0.03


def test_when_counting_expect_each_rule_and_the_worst_margin() -> None:
    world = run(95)
    world.tick(chunks=(world.chunk(np.tile(HOME, (40, 1)), period_s=-1.0),))
    counters = world.core.counters
    assert counters.rules == {'period': 1}
    assert (counters.accepted, counters.refused) == (1, 1)
    assert counters.published == len([o for o in world.outputs if o.trajectory is not None])
    assert 0.0 < world.core.worst_margin < 0.9
    assert world.core.joint_state_age_s(world.ros_ns + 10**9) == pytest.approx(1.0)


def test_when_an_older_joint_state_comes_late_expect_it_passed_over() -> None:
    world = World()
    world.ticks(5)
    age = world.core.joint_state_age_s(world.ros_ns)
    world.measure = False
    old = JointState(world.ros_ns - 50_000_000, world.limits.names, HOME + 0.5)
    world.tick(joint_state=old, arm=True)
    assert (world.commanded()[0] == HOME).all()
    assert world.core.joint_state_age_s(world.ros_ns) == pytest.approx(age + 0.01)


def test_when_a_gripper_holds_something_expect_neither_a_fault_nor_a_start_jump() -> None:
    for grippers, states in (([], {'FAULT'}), (['fr3_joint7'], {'HOLD', 'ARMED'})):
        world = World(GuardConfig(gripper_joints=grippers, tracking_error=0.1, start_jump=0.15))
        world.arm()
        world.measure = False
        data = smooth_plan(HOME, np.array([0, 0, 0, 0, 0, 0, 0.4]), 21, 0.05)
        chunk = world.chunk(data)
        for i in range(130):
            stuck = np.array(world.robot_state(world.ros_ns + 10**7)[0])
            stuck[6] = min(stuck[6], 0.85)
            inputs = {'joint_state': JointState(world.ros_ns + 10**7, world.limits.names, stuck)}
            out = world.tick(chunks=(chunk,) if i == 0 else (), **inputs)
        assert out.state.name in states
    again = world.chunk(smooth_plan(world.commanded()[0], np.zeros(7), 21, 0.05))
    out = world.tick(chunks=(again,), **inputs)
    assert out.reports[0].verdict == 'accepted'


def test_when_a_gripper_is_not_under_guard_expect_it_named() -> None:
    with pytest.raises(LimitsError, match="'claw' is not under guard"):
        World(GuardConfig(gripper_joints=['claw']))
