# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Clamped plans: slowed along their path, never caught up, given up when too far behind."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from guard_world import HOME, START_NS, GuardState, World, fr3_limits, smooth_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limits import JointLimits
from vla_deploy.core.pace import pace
from vla_deploy.core.plan import interpolant
from vla_deploy.core.schedule import SessionBook
from vla_deploy.core.verify import VerifyState, verify_chunk

BOUNDS = Bounds.of(fr3_limits(), 0.005)
seeds = st.integers(0, 2**32 - 1)


def armed_world(**config: Any) -> World:
    world = World(GuardConfig(**{'start_jump': 10.0, 'trip_count': 1000, 'max_lag_s': 10.0,
                                 'chunk_silence_s': 30.0, **config}))
    world.arm()
    return world


def ramp(speed: float, steps: int = 40) -> np.ndarray:
    """From rest to a steady speed of joint 1, joints 2 and 3 at fixed fractions of it."""
    s = np.arange(steps)
    way = speed * 0.05 * np.where(s < 20, s * s / 40.0, s - 10.0)
    return HOME + way[:, None] * np.array([1.0, 0.4, -0.7, 0, 0, 0, 0])


def rates(data: np.ndarray, period_s: float = 0.05) -> list[float]:
    return pace(interpolant(START_NS, period_s, data), BOUNDS)


def test_when_a_plan_keeps_the_limits_expect_full_pace() -> None:
    assert rates(smooth_plan(HOME, np.full(7, 0.3), 41, 0.05)) == [1.0] * 40


def test_when_a_plan_is_twice_too_fast_expect_speed_scaled_into_the_limit() -> None:
    made = rates(ramp(4.0))
    assert made[-1] == pytest.approx(0.8 * 2.62 / 4.0, rel=1e-3)
    assert made[0] == 1.0


def test_when_acceleration_is_too_high_expect_the_square_of_the_rate_to_scale_it() -> None:
    t = 0.05 * np.arange(30)[:, None]
    made = rates(HOME + 0.5 * 16.0 * np.minimum(t, 0.15) ** 2 * np.ones(7) * (t >= 0))
    assert min(made) < np.sqrt(0.8 * 10.0 / 14.0)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_when_a_plan_is_wild_expect_rates_in_range_that_change_gently(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = HOME + np.cumsum(rng.normal(0, 0.1, (int(rng.integers(2, 40)), 7)), axis=0)
    made = np.array(rates(data))
    assert ((made > 0.0) & (made <= 1.0)).all()
    assert len(made) == len(data) - 1
    speed = np.abs(np.diff(data, axis=0)).max(axis=0) / 0.05
    assert (np.abs(np.diff(made)) <= 10.0 * 0.05 / speed.max() * 1.5 + 1.0 * (len(data) < 4)).all()


def test_when_a_plan_is_too_fast_expect_its_path_kept() -> None:
    world = armed_world()
    data = ramp(3.2, 24)
    assert world.tick(chunks=(world.chunk(data),)).reports[0].verdict == 'clamped'
    while world.tick().state is GuardState.ARMED:
        way = world.commanded()[0] - HOME
        np.testing.assert_allclose(way[1:3], way[0] * np.array([0.4, -0.7]), atol=0.03)
    assert way[0] > 0.9 * (data[-1] - HOME)[0]


@settings(max_examples=8, deadline=None)
@given(seeds)
def test_when_clamped_expect_the_plan_clock_never_to_gain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = armed_world()
    world.tick(chunks=(world.chunk(HOME + np.cumsum(rng.normal(0, 0.08, (20, 7)), axis=0)),))
    world.tick()
    lags = []
    for _ in range(100):
        world.tick(float(0.01 * 2.0 ** rng.uniform(-2, 2)))
        if world.core.state is GuardState.ARMED:
            lags.append(world.core._line.lag_ns)
    assert (np.diff(lags) >= 0).all()
    assert lags[0] >= 0


def test_when_slowed_expect_the_samples_counted_on_the_plan_clock_and_the_end_later() -> None:
    world = armed_world()
    chunk = world.chunk(ramp(4.0, 30))
    world.tick(chunks=(chunk,))
    end_ns = chunk.stamp_ns + 29 * 50_000_000
    while world.ros_ns < end_ns:
        out = world.tick()
    assert out.state is GuardState.ARMED
    assert out.execution.consumed_total < 29
    out = world.ticks(200)
    assert out.execution.consumed_total == 29
    assert out.reason == 'plan ended'


def test_when_the_lag_grows_too_long_expect_hold_and_the_reason() -> None:
    for max_lag_s, expected in ((0.1, GuardState.HOLD), (5.0, GuardState.ARMED)):
        world = armed_world(max_lag_s=max_lag_s)
        world.tick(chunks=(world.chunk(ramp(5.0, 40)),))
        out = world.ticks(160)
        assert out.state is expected
    rules = [v.rule for o in world.outputs for v in o.violations]
    assert 'lag' not in rules
    world = armed_world(max_lag_s=0.1)
    world.tick(chunks=(world.chunk(ramp(5.0, 40)),))
    world.ticks(160)
    assert [v.rule for o in world.outputs for v in o.violations].count('lag') == 1
    assert 'behind its plan' in world.outputs[-1].reason


def test_when_a_new_plan_starts_expect_it_without_the_old_lag() -> None:
    world = armed_world()
    world.tick(chunks=(world.chunk(ramp(4.0, 30)),))
    world.ticks(140)
    assert world.core._line.lag_ns > 10**8
    world.tick(chunks=(world.chunk(np.tile(world.commanded()[0], (40, 1))),))
    world.ticks(3)
    assert world.core._line.lag_ns == 0


def test_when_scaling_cannot_help_expect_the_violation_to_say_so() -> None:
    world = armed_world()
    data = ramp(4.0)
    data[:, 5] = np.linspace(HOME[5], 5.0, 40)
    out = world.tick(chunks=(world.chunk(data),))
    said = {v.rule: v.message for v in out.violations}
    assert said['position'].endswith('this joint is projected alone')
    assert 'alone' not in said['velocity']


def judge(data: np.ndarray, limits: JointLimits) -> tuple[Any, set[tuple[str, str]]]:
    world = World(GuardConfig(start_jump=10.0, soft_margin=0.0), limits)
    state = VerifyState(START_NS, START_NS, SessionBook(), HOME, HOME, START_NS)
    chunk = world.chunk(data, stamp_ns=START_NS, observation_stamp_ns=START_NS)
    verified, report = verify_chunk(chunk, state, limits, world.config)
    return verified, {(v.rule, v.joint) for v in report.violations}


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.3, 1.0), st.floats(0.3, 1.0), st.floats(0.0, 0.2))
def test_when_limits_are_tighter_expect_no_violation_to_vanish(
    seed: int, velocity: float, acceleration: float, inward: float
) -> None:
    rng = np.random.default_rng(seed)
    data = HOME + np.cumsum(rng.normal(0, rng.choice([0.003, 0.03, 0.2]), (20, 7)), axis=0)
    loose = fr3_limits()
    tight = JointLimits.of([
        dataclasses.replace(j, velocity=j.velocity * velocity, lower=j.lower + inward,
                            upper=j.upper - inward, acceleration=j.acceleration * acceleration)
        for j in loose.joints])
    assert judge(data, loose)[1] <= judge(data, tight)[1]


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_when_verified_twice_expect_the_same_as_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = HOME + np.cumsum(rng.normal(0, rng.choice([0.003, 0.3]), (20, 7)), axis=0)
    once, _ = judge(data, fr3_limits())
    assert once is not None
    twice, _ = judge(once.data, fr3_limits())
    assert twice is not None
    np.testing.assert_allclose(twice.data, once.data, atol=1e-9)
