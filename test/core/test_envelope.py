# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Velocity that depends on position: the viable curve, the limiter, verification and the join."""

import dataclasses

import numpy as np
import pytest
from guard_world import HOME, NAMES, GuardState, World, fr3_limits, smooth_plan, speed_excess
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.bounds import GRID_NS, GRID_S, Bounds
from vla_deploy.core.braking import brake, slew_then_brake
from vla_deploy.core.envelope import SpeedEnvelope
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limiter import StepLimiter
from vla_deploy.core.limits import JointLimits
from vla_deploy.core.trajectory import segment_hull

LIMITS = fr3_limits()
FREE = JointLimits.of([dataclasses.replace(j, envelope=None) for j in LIMITS.joints])
seeds = st.integers(0, 2**32 - 1)


def envelope(limits: JointLimits = LIMITS, allowance: float = 0.0) -> SpeedEnvelope:
    made = SpeedEnvelope.of(limits, limits.acceleration, np.full(7, allowance))
    assert made is not None
    return made


def backward_viable_speed(joint: int, room_end: float) -> tuple[np.ndarray, np.ndarray]:
    """Largest viable speed over room to q_upper, by integrating v dv = a dd from the end."""
    curve = LIMITS.joints[joint].envelope
    assert curve is not None
    room = np.linspace(curve.c**2 / curve.k, room_end, 40001)
    published = np.sqrt(curve.k * room) - curve.c
    square, step = np.zeros_like(room), room[1] - room[0]
    for i in range(1, len(room)):
        square[i] = min(published[i] ** 2, square[i - 1] + 20.0 * step)
    return room, np.sqrt(square)


@pytest.mark.parametrize('joint', range(7))
def test_when_integrated_backward_expect_the_same_viable_speed(joint: int) -> None:
    room, expected = backward_viable_speed(joint, 0.6)
    curve = LIMITS.joints[joint].envelope
    column = room[:, None] * np.ones(7)
    upward = envelope().upward(curve.q_upper - column)[:, joint]
    downward = envelope().downward(curve.q_lower + column)[:, joint]
    np.testing.assert_allclose(upward, expected, atol=2e-3)
    np.testing.assert_allclose(downward, expected, atol=2e-3)


def test_when_the_published_curve_asks_too_much_expect_less_on_joints_5_and_7_alone() -> None:
    made = envelope()
    for j, joint in enumerate(LIMITS.joints):
        q = joint.envelope.q_upper - 0.4
        published = np.sqrt(joint.envelope.k * 0.4) - joint.envelope.c
        viable = made.upward(np.full(7, q))[j]
        assert (viable < published - 0.2) == (j in (4, 6))
        assert viable <= published + 1e-12


def test_when_no_joint_has_a_curve_expect_none() -> None:
    assert SpeedEnvelope.of(FREE, FREE.acceleration, np.zeros(7)) is None


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([1.0, 4.0, 10.0, 20.0]))
def test_when_braking_from_the_curve_expect_the_published_speed_kept(
    seed: int, acceleration: float
) -> None:
    rng = np.random.default_rng(seed)
    limits = fr3_limits(acceleration)
    bounds = Bounds.of(limits, 0.0)
    q = rng.uniform(bounds.lower, bounds.upper)
    top = np.minimum(bounds.velocity, np.minimum(
        bounds.envelope.upward(q), np.sqrt(2 * bounds.acceleration * (bounds.upper - q))))
    tail = brake(0, q, top, bounds.acceleration)
    assert speed_excess(tail, limits).max() <= 1e-9


@pytest.mark.parametrize('dt_steps', [4, 20, 100])
@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([2.0, 10.0, 20.0]))
def test_when_driven_into_the_ends_expect_every_state_below_the_curve(
    dt_steps: int, seed: int, acceleration: float
) -> None:
    rng = np.random.default_rng(seed)
    limits = fr3_limits(acceleration)
    bounds = Bounds.of(limits, 0.0)
    limiter = StepLimiter(bounds, dt_steps * GRID_S)
    q, v = rng.uniform(bounds.lower, bounds.upper), np.zeros(7)
    side = np.where(rng.random(7) < 0.5, -9.0, 9.0)
    for _ in range(40):
        after, brakes = limiter.step(q, v, q + side, np.zeros(7))
        motion = slew_then_brake(0, q, v, after, np.where(brakes, 0, dt_steps).tolist(),
                                 bounds.acceleration)
        if len(motion.times) > 1:
            assert speed_excess(motion, limits).max() <= 1e-9
        q, v = motion.state(int(rng.integers(1, dt_steps + 1)) * GRID_NS)


def test_when_driven_into_an_end_expect_nearly_all_of_the_allowed_speed_used() -> None:
    bounds = Bounds.of(LIMITS, 0.0)
    limiter = StepLimiter(bounds, 0.02)
    q, v, used = HOME, np.zeros(7), np.zeros(7)
    for _ in range(400):
        after, brakes = limiter.step(q, v, q + 9.0, np.zeros(7))
        q, v = slew_then_brake(0, q, v, after, np.where(brakes, 0.0, 20.0),
                               bounds.acceleration).state(10 * GRID_NS)
        allowed = np.minimum(bounds.velocity, bounds.envelope.upward(q))
        slowed = (allowed < 0.9 * bounds.velocity) & (allowed > 0.3)
        used = np.maximum(used, np.where(slowed, v / allowed, 0.0))
    # On joints 5 and 7 the curve is full braking, of which an approach uses about half: 0.7 of v.
    assert (used > [0.95, 0.95, 0.95, 0.95, 0.7, 0.95, 0.7]).all()


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_when_judged_expect_never_too_lenient_and_hardly_too_strict(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = envelope()
    curve_end = np.array([j.envelope.q_upper for j in LIMITS.joints])
    p0 = curve_end - rng.uniform(0.1, 0.5, (1, 7))
    v0, v1 = rng.uniform(-1.5, 2.5, (2, 1, 7))
    h = np.array([[rng.uniform(0.01, 0.08)]])
    p1 = p0 + 0.5 * (v0 + v1) * h
    speed, limit = made.judge(p0, p1, v0, v1, h, segment_hull(p0, p1, v0, v1, (p1 - p0) / h, h))
    s = np.linspace(0.0, 1.0, 200)[:, None] * h
    mean = (p1 - p0) / h
    a0, jerk = (6 * mean - 4 * v0 - 2 * v1) / h, 6 * (v0 + v1 - 2 * mean) / h**2
    q, v = p0 + s * (v0 + s * (a0 / 2 + s * jerk / 6)), v0 + s * (a0 + s * jerk / 2)
    true = np.maximum(v - made.upward(q), -v - made.downward(q)).max(axis=0)
    judged = np.isfinite(limit[0])
    assert (true[~judged] <= 0.0).all()
    assert ((speed - limit)[0, judged] >= true[judged] - 1e-9).all()
    assert (true[(speed > limit)[0]] > -0.2).all()


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([2.0, 10.0]))
def test_when_one_joint_is_looked_at_expect_what_is_clear_of_all_at_once(
    seed: int, acceleration: float
) -> None:
    rng = np.random.default_rng(seed)
    limits = fr3_limits(acceleration)
    made = envelope(limits)
    ends = np.sort(rng.uniform(limits.lower, limits.upper, (2, 7)), axis=0)
    allowed = np.minimum(made.upward(ends[1]), made.downward(ends[0]))
    speed = allowed * (1.0 + rng.choice([-0.1, -1e-12, 1e-12, 0.1], 7))
    clear = made.clearly_below(speed[None], ends[:1], ends[1:])[0]
    each = [curve.clearly_below(*joint) for curve, joint in zip(
        made.curves, zip(speed.tolist(), *ends.tolist(), strict=True), strict=True)]
    assert each == clear.tolist()
    assert (speed <= allowed)[clear].all()


@pytest.mark.parametrize('acceleration', [2.0, 10.0])
def test_when_joints_are_far_from_their_ends_expect_half_the_speed_to_be_clear(
    acceleration: float
) -> None:
    made = envelope(fr3_limits(acceleration))
    half = 0.5 * np.minimum(made.upward(HOME), made.downward(HOME))[None]
    assert made.clearly_below(half, HOME[None], HOME[None]).all()
    assert not made.clearly_below(2.1 * half, HOME[None], HOME[None]).any()


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([2.0, 10.0]))
def test_when_there_is_clear_room_expect_the_curve_to_bind_no_step(
    seed: int, acceleration: float
) -> None:
    rng = np.random.default_rng(seed)
    for curve, v_max in zip(envelope(fr3_limits(acceleration)).curves, LIMITS.velocity.tolist(),
                            strict=True):
        room, v = curve.clear_room(v_max, 0.02), float(rng.uniform(-v_max, v_max))
        if room < np.inf:
            assert curve.step_bound(room, v, v_max, 0.02) == v_max
            assert curve.step_bound(room * 0.5, v_max, v_max, 0.02) < v_max


def near_end(speed: float) -> tuple[World, np.ndarray]:
    """An armed world near q_upper of joint 5 and a steady plan of 1 s toward it."""
    start = HOME.copy()
    start[4] = 2.70 - speed
    world = World(GuardConfig(start_jump=5.0, trip_count=1000), position=start)
    world.arm()
    s = np.linspace(0, 1, 41)
    way = 2 * s**2 * (s < 0.5) + (1 - 2 * (1 - s) ** 2) * (s >= 0.5)
    data = np.tile(start, (41, 1))
    data[:, 4] += speed * way
    return world, data


def test_when_a_plan_is_too_fast_near_the_end_expect_it_named_and_clamped() -> None:
    world, data = near_end(0.15)
    data[:, 4] = 2.3 + 0.5 * np.linspace(0, 1, 41)  # 2.5 rad/s in the middle of nowhere: too fast
    out = world.tick(chunks=(world.chunk(data, 0.01),))
    found = [v for v in out.violations if v.rule == 'velocity']
    assert out.reports[0].verdict == 'clamped'
    assert [v.joint for v in found] == [NAMES[4]]
    assert 'so near to the end of the range' in found[0].message
    assert found[0].limit < 1.4
    assert world.ticks(60).state is not GuardState.FAULT


def test_when_the_same_plan_is_far_from_the_end_expect_no_word_about_position() -> None:
    world, data = near_end(0.15)
    data[:, 4] = 0.3 + 0.5 * np.linspace(0, 1, 41)
    out = world.tick(chunks=(world.chunk(data, 0.01),))
    assert not any('end of the range' in v.message for v in out.violations)


def test_when_a_slow_plan_ends_near_the_range_expect_it_accepted() -> None:
    world, data = near_end(0.15)
    out = world.tick(chunks=(world.chunk(data, 0.05),))
    assert out.reports[0].verdict == 'accepted'
    world.ticks(190)
    np.testing.assert_allclose(world.commanded()[0], data[-1], atol=2e-3)


def test_when_a_join_would_be_too_fast_near_the_end_expect_the_limiter() -> None:
    start = HOME.copy()
    start[1] = 1.70
    world = World(GuardConfig(start_jump=0.1, join_window_s=0.1), position=start)
    world.arm()
    target = start.copy()
    target[1] = 1.76
    world.tick(chunks=(world.chunk(np.tile(target, (20, 1))),))
    world.tick()
    world.tick()
    assert not world.core._line.on_plan()
    world.ticks(80)
    np.testing.assert_allclose(world.commanded()[0], target, atol=1e-4)


@pytest.mark.parametrize('place', [1.0, 0.6])
def test_when_motion_is_ordinary_expect_the_curves_to_change_nothing(place: float) -> None:
    commands = []
    for limits in (LIMITS, FREE):
        world = World(GuardConfig(), limits, position=HOME)
        world.arm()
        data = smooth_plan(HOME, place * np.array([0.5, 0.4, -0.4, 0.5, 0.3, 0.3, 0.4]), 41, 0.05)
        out = world.tick(chunks=(world.chunk(data),))
        assert out.reports[0].verdict == 'accepted'
        world.ticks(60)
        commands.append(world.outputs[-1].trajectory)
    assert (commands[0].position == commands[1].position).all()
    assert (commands[0].velocity == commands[1].velocity).all()
