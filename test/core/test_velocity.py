# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Robots commanded in velocity: plans, limits, the fence, drift, stops and explicit zeros."""

import dataclasses

import numpy as np
import pytest
from guard_world import HOME, World, smooth_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from velocity_world import CONFIG, VelocityWorld, quadcopter_limits

from vla_deploy.core.chunk import ControlMode
from vla_deploy.core.guard_io import GuardState
from vla_deploy.core.limits import JointLimits, VelocityEnvelope

seeds = st.integers(0, 2**32 - 1)


def wave(steps: int = 40, period_s: float = 0.05, peak: float = 0.3) -> np.ndarray:
    """Velocities from rest, there and back, to rest."""
    t = np.arange(steps) * period_s
    shape = np.sin(np.pi * t / t[-1]) ** 2 * np.sin(2 * np.pi * t / t[-1])
    return peak * shape[:, None] * np.array([1.0, -0.5, 0.3, 1.0])


def test_when_a_plan_is_safe_expect_its_very_velocities_at_its_samples() -> None:
    world = VelocityWorld(dataclasses.replace(CONFIG, period_s=0.05, lead_s=0.0))
    world.arm()
    data = wave()
    first = len(world.sent)
    out = world.tick(chunks=(world.chunk(data),))
    assert out.reports[0].verdict == 'accepted'
    world.ticks(len(data) - 1)
    got, wanted = np.array(world.sent[first:]), data
    offset = next(i for i in range(4) if np.array_equal(got[i + 3], wanted[3]))
    assert np.array_equal(got[offset + 3:], wanted[3:len(got) - offset])
    assert world.core.counters.rules == {}


def test_when_a_plan_ends_expect_a_ramp_to_zero_and_then_explicit_zeros() -> None:
    world = VelocityWorld()
    world.arm()
    world.tick(chunks=(world.chunk(np.tile([0.5, 0.0, 0.2, -0.5], (10, 1))),))
    world.ticks(20)
    assert world.velocity[0] > 0.45
    out = world.ticks(60)
    assert out.state is GuardState.HOLD
    first_zero = next(i for i in range(25, 80) if not world.sent[i].any())
    assert len(world.sent) - first_zero > 20  # zeros go on being said
    assert not np.array(world.sent[first_zero:]).any()


@pytest.mark.parametrize('stop', ['estop', 'disarm'])
def test_when_stopped_expect_a_ramp_to_zero_a_last_zero_and_silence(stop: str) -> None:
    world = VelocityWorld()
    world.arm()
    world.tick(chunks=(world.chunk(np.tile([0.5, 0.5, 0.0, 0.5], (20, 1))),))
    world.ticks(30)
    assert world.velocity[0] > 0.4
    out = world.tick(**{stop: True})
    world.ticks(60, estop=stop == 'estop')
    before = len(world.sent)
    assert not world.sent[-1].any()
    assert world.sent[-2].any() or stop == 'disarm'
    out = world.ticks(20)
    assert len(world.sent) == before
    assert out.state is (GuardState.ESTOP_LATCHED if stop == 'estop' else GuardState.DISARMED)


def test_when_a_plan_is_too_fast_expect_its_direction_kept_and_its_speed_limited() -> None:
    world = VelocityWorld()
    world.arm()
    for _ in range(4):
        out = world.tick(chunks=(world.chunk(np.tile([3.0, -1.5, 0.0, 0.0], (40, 1))),))
        world.ticks(20)
        assert out.reports[0].verdict == 'clamped'
        moving = np.array([v for v in world.sent if v.any()])
        np.testing.assert_allclose(moving[:, 1], -0.5 * moving[:, 0], atol=1e-9)
    assert world.velocity[0] == pytest.approx(1.0, abs=1e-5)
    assert 'velocity' in [v.rule for v in out.violations]


def test_when_plans_are_refused_beyond_a_limit_expect_the_robot_to_stay() -> None:
    world = VelocityWorld(dataclasses.replace(CONFIG, mode='reject'))
    world.arm()
    out = world.tick(chunks=(world.chunk(np.tile([3.0, 0.0, 0.0, 0.0], (40, 1))),))
    assert out.reports[0].verdict == 'refused'
    world.ticks(20)
    assert not np.array(world.sent).any()


@pytest.mark.parametrize('value', [100.0, -100.0, 1e308, 0.9])
def test_when_a_policy_drives_at_the_fence_expect_it_to_stop_inside(value: float) -> None:
    world = VelocityWorld(dataclasses.replace(CONFIG, trip_count=1000))
    world.arm()
    for _ in range(80):
        world.tick(chunks=(world.chunk(np.full((20, 4), value)),))
        world.ticks(9)
    distance = 5.0 - np.abs(world.position[:2])
    assert ((distance > 0.0) & (distance < 0.02)).all()
    assert world.position[3] * np.sign(value) > 9.0  # a heading has no end


def test_when_wind_carries_it_to_the_fence_expect_it_held_there_against_the_wind() -> None:
    world = VelocityWorld(dataclasses.replace(CONFIG, trip_count=1000),
                          position=np.array([4.2, 0.0, 1.0, 0.0]))
    world.wind = np.array([0.2, 0.0, 0.0, 0.0])
    world.arm()
    farthest = 0.0
    for _ in range(30):
        world.tick(chunks=(world.chunk(np.tile([0.5, 0.2, 0.0, 0.0], (20, 1))),))
        world.ticks(9)
        farthest = max(farthest, world.position[0])
    assert 4.9 < farthest < 5.0 + 0.2 * 0.5  # the wind, for as long as braking takes
    assert world.position[0] == pytest.approx(5.0, abs=0.05)
    assert world.velocity[0] == pytest.approx(-0.2, abs=0.05)  # held against the wind
    assert world.position[1] > 0.5  # along the fence it goes on
    assert world.core.state is GuardState.ARMED


def test_when_a_plan_fits_where_it_began_but_not_where_wind_took_it_expect_it_left() -> None:
    world = VelocityWorld(position=np.array([3.0, 0.0, 1.0, 0.0]))
    world.arm()
    world.wind = np.array([0.45, 0.0, 0.0, 0.0])
    out = world.tick(chunks=(world.chunk(np.tile([0.5, 0.0, 0.0, 0.0], (60, 1))),))
    assert out.reports[0].verdict == 'accepted'
    for _ in range(100):
        world.tick()
        ahead = world.position[0] + world.velocity[0] ** 2 / (2 * 1.5)
        assert ahead < 5.0 + 0.45 * 0.5  # the wind, for as long as braking takes


def test_when_it_does_not_move_as_commanded_expect_a_fault() -> None:
    world = VelocityWorld()
    world.arm()
    world.wind = np.array([0.0, 0.8, 0.0, 0.0])
    out = world.ticks(60)
    assert out.state is GuardState.FAULT
    assert 'y is' in out.reason
    assert 'from its command' in out.reason


def test_when_drift_is_slow_expect_no_fault_however_far_it_goes() -> None:
    world = VelocityWorld()
    world.arm()
    world.wind = np.array([0.0, 0.3, 0.0, 0.0])
    assert world.ticks(400).state is GuardState.HOLD
    assert world.position[1] > 2.0


def test_when_a_compass_jumps_by_a_turn_expect_the_motion_to_go_on() -> None:
    world = VelocityWorld(position=np.array([0.0, 0.0, 1.0, 3.0]))
    world.wraps = True
    world.arm()
    for _ in range(10):
        world.tick(chunks=(world.chunk(np.tile([0.0, 0.0, 0.0, 0.7], (20, 1))),))
        out = world.ticks(14)
        assert out.state is GuardState.ARMED
    assert world.position[3] > 3.0 + 1.5


def test_when_the_mode_of_a_chunk_is_the_other_one_expect_it_refused() -> None:
    world = VelocityWorld()
    world.arm()
    out = world.tick(chunks=(world.chunk(wave(), control_mode=ControlMode.POSITION),))
    assert [v.rule for v in out.violations] == ['control_mode']
    other = World()
    other.arm()
    data = smooth_plan(HOME, np.zeros(7), 10, 0.05)
    out = other.tick(chunks=(other.chunk(data, control_mode=ControlMode.VELOCITY),))
    assert [v.rule for v in out.violations] == ['control_mode']


def test_when_the_clock_jumps_back_expect_it_to_stop_and_go_on_from_where_it_is() -> None:
    world = VelocityWorld()
    world.arm()
    world.tick(chunks=(world.chunk(np.tile([0.5, 0.0, 0.0, 0.0], (40, 1))),))
    world.ticks(20)
    assert world.velocity[0] > 0.3
    world.now_ns -= 10**9
    sent = len(world.sent)
    for _ in range(40):
        out = world.tick(0.02)
        assert out.state is GuardState.HOLD
    assert len(world.sent) == sent + 40
    assert not world.velocity.any()
    world.tick(chunks=(world.chunk(np.tile([0.5, 0.0, 0.0, 0.0], (40, 1)), seq=99),))
    world.ticks(20)
    assert world.velocity[0] > 0.3


def test_when_the_clock_jumps_back_in_an_emergency_expect_braking_to_go_on_where_it_was() -> None:
    world = VelocityWorld()
    world.arm()
    world.tick(chunks=(world.chunk(np.tile([0.8, 0.0, 0.0, 0.0], (40, 1))),))
    world.ticks(30)
    world.ticks(5, estop=True)
    speed = world.velocity[0]
    assert 0.1 < speed < 0.8
    world.now_ns -= 5 * 10**9
    for _ in range(40):
        world.tick(estop=True)
        assert world.velocity[0] <= speed
        speed = world.velocity[0]
    assert speed == 0.0


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_when_velocities_are_hostile_expect_every_message_within_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = rng.uniform([-4.9, -4.9, 0.1, -3.0], [4.9, 4.9, 2.9, 3.0])
    world = VelocityWorld(dataclasses.replace(CONFIG, trip_count=1000), position=start)
    world.jittered = bool(rng.random() < 0.5)
    world.arm()
    for _ in range(40):
        kind, steps = rng.integers(4), int(rng.integers(2, 30))
        data = rng.normal(0, (0.3, 0.3, 3.0, 1e300)[kind], (steps, 4))
        if kind == 0:
            data = np.cumsum(data * 0.1, axis=0)
        if kind == 3 and rng.random() < 0.3:
            data[rng.integers(steps), rng.integers(4)] = rng.choice([np.nan, np.inf, -0.0])
        world.tick(chunks=(world.chunk(data, float(rng.choice([0.02, 0.05, 0.2]))),))
        for _ in range(int(rng.integers(1, 12))):
            late = 2.0 ** rng.uniform(-2, 2) if world.jittered else 1.0
            world.tick(late * world.config.period_s)
        if rng.random() < 0.1:
            world.tick(disarm=True)
            world.ticks(60)
            world.tick(arm=True)
    assert world.core.counters.accepted + world.core.counters.clamped > 0


def test_when_speed_is_bounded_by_position_expect_drift_toward_the_end_to_leave_the_plan() -> None:
    curve = VelocityEnvelope(0.5, 0.1, -5.0, 5.0)
    limits = JointLimits.of([
        dataclasses.replace(joint, envelope=curve) if joint.name == 'x' else joint
        for joint in quadcopter_limits().joints])
    wanted = np.tile([0.5, 0.0, 0.0, 0.0], (48, 1))
    for wind, joined in ((0.0, True), (0.4, False)):
        world = VelocityWorld(dataclasses.replace(CONFIG, chunk_silence_s=9.0), limits,
                              np.array([3.0, 0.0, 1.0, 0.0]))
        world.arm()
        assert world.tick(chunks=(world.chunk(wanted),)).reports[0].verdict == 'accepted'
        world.ticks(30)
        world.wind[0] = wind
        world.ticks(75)
        assert (abs(world.velocity[0] - 0.5) < 1e-6) == joined
        room = 5.0 - world.position[0]
        assert world.velocity[0] <= np.sqrt(0.5 * room) - 0.1 + 0.02
