# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Braking tails and the limiter, judged on the motion that comes of them."""

import math

import numpy as np
import pytest
from guard_world import HOME, fr3_limits
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.bounds import GRID_NS, GRID_S, Bounds
from vla_deploy.core.braking import brake, slew_then_brake
from vla_deploy.core.limiter import JointStep, StepLimiter
from vla_deploy.core.trajectory import trajectory_extrema

seeds = st.integers(0, 2**32 - 1)
LIMITS = fr3_limits()
BOUNDS = Bounds.of(LIMITS, 0.0)


def viable_state(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A state that full braking keeps inside, often right at the edge."""
    q = rng.uniform(BOUNDS.lower, BOUNDS.upper)
    v = rng.uniform(-1, 1, 7) * BOUNDS.velocity
    room = np.where(v > 0, BOUNDS.upper - q, q - BOUNDS.lower)
    edge = np.sqrt(2 * BOUNDS.acceleration * room) * (1 - 1e-12)
    return q, np.sign(v) * np.minimum(np.abs(v), edge)


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_when_braking_from_a_viable_state_expect_every_limit_kept(seed: int) -> None:
    q, v = viable_state(np.random.default_rng(seed))
    tail = brake(10**18, q, v, BOUNDS.acceleration)
    e = trajectory_extrema(tail) if len(tail.times) > 1 else None
    assert not tail.velocity[-1].any()
    if e is not None:
        assert (e.acceleration <= LIMITS.acceleration * (1 + 1e-9)).all()
        assert (e.lower >= LIMITS.lower).all()
        assert (e.upper <= LIMITS.upper).all()
        assert (np.diff(tail.times) >= GRID_NS).all()


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_when_braking_expect_the_shortest_way_but_for_one_grid_step(seed: int) -> None:
    q, v = viable_state(np.random.default_rng(seed))
    tail = brake(0, q, v, BOUNDS.acceleration)
    way = np.abs(tail.position[-1] - q)
    ideal = v * v / (2 * BOUNDS.acceleration)
    assert (way >= ideal * (1 - 1e-9) - 1e-12).all()
    assert (way <= ideal + BOUNDS.acceleration * GRID_S**2 / 8 + 1e-12).all()
    longest = (np.abs(v) / BOUNDS.acceleration).max()
    assert tail.end_ns * 1e-9 <= longest + GRID_S + 1e-12


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.floats(-2e-9, 2e-9), st.integers(0, 30), st.sampled_from([-1, 1]))
def test_when_a_speed_is_a_whole_number_of_steps_but_for_rounding_expect_rest_from_its_end_on(
    steps: int, rounding: float, slew: int, side: int
) -> None:
    drop = BOUNDS.acceleration * GRID_S
    after = np.zeros(7)
    after[:2] = side * steps * (1.0 + rounding) * drop[0], 400.5 * drop[1]  # which brakes longer
    motion = slew_then_brake(0, HOME, after, after, [slew] * 7, BOUNDS.acceleration)
    own_end = slew + math.ceil(abs(after[0]) / drop[0] - 1e-9)
    assert not motion.velocity[motion.times >= own_end * GRID_NS, 0].any()
    assert not motion.velocity[-1].any()
    assert not motion.velocity[:, 2:].any()
    assert not np.signbit(motion.velocity[:, 2:]).any()


def test_when_at_rest_expect_a_single_knot() -> None:
    tail = brake(5, HOME, np.zeros(7), BOUNDS.acceleration)
    assert tail.times.tolist() == [5]
    assert (tail.position[0] == HOME).all()


@pytest.mark.parametrize('dt_steps', [3, 10, 20, 100])
@settings(max_examples=25, deadline=None)
@given(seeds)
def test_when_limited_expect_the_step_and_its_tail_inside_every_limit(
    dt_steps: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    limiter = StepLimiter(BOUNDS, dt_steps * GRID_S)
    q, v = viable_state(rng)
    for _ in range(6):
        target = rng.choice([rng.uniform(-4, 4, 7), rng.normal(0, 1e3, 7), q + 1e-6, HOME])
        w = rng.choice([np.zeros(7), rng.normal(0, 5, 7)])
        after, brakes = limiter.step(q, v, target, w)
        motion = slew_then_brake(0, q, v, after, np.where(brakes, 0, dt_steps).tolist(),
                                 BOUNDS.acceleration)
        if len(motion.times) > 1:
            e = trajectory_extrema(motion)
            assert (e.acceleration <= LIMITS.acceleration * (1 + 1e-9)).all()
            assert (e.speed <= LIMITS.velocity * (1 + 1e-9)).all()
            assert (e.lower >= LIMITS.lower).all()
            assert (e.upper <= LIMITS.upper).all()
        # Any time along it, the tail included, is a state to go on from.
        t = int(rng.integers(1, dt_steps * 2)) * GRID_NS
        q, v = motion.state(t)
        assert (BOUNDS.viability_room(q, v) >= -BOUNDS.acceleration * GRID_S**2 / 4).all()


@pytest.mark.parametrize(('position', 'velocity'), [
    (LIMITS.upper + 0.05, np.full(7, 0.0)),
    (LIMITS.upper + 0.05, np.full(7, 1.0)),
    (LIMITS.upper - 0.01, BOUNDS.velocity),
    (HOME, 1.5 * LIMITS.velocity),
])
def test_when_the_start_is_not_viable_expect_full_braking_and_nothing_harder(
    position: np.ndarray, velocity: np.ndarray
) -> None:
    after, brakes = StepLimiter(BOUNDS, 0.02).step(position, velocity, LIMITS.upper + 1.0,
                                                   np.zeros(7))
    motion = slew_then_brake(0, position, velocity, after, np.where(brakes, 0.0, 20.0),
                             BOUNDS.acceleration)
    full = brake(0, position, velocity, BOUNDS.acceleration)
    if len(motion.times) > 1:
        assert (trajectory_extrema(motion).acceleration <= LIMITS.acceleration * (1 + 1e-9)).all()
    assert (motion.position.max(axis=0) <= full.position.max(axis=0) + 2e-5).all() or (
        np.abs(after) <= np.maximum(velocity - 0.19, LIMITS.velocity)).all()


def follow(target: np.ndarray, start: np.ndarray, dt_steps: int = 20) -> np.ndarray:
    """Positions [ticks, joints] of a limiter replaced every half step, target [ticks, joints]."""
    limiter = StepLimiter(BOUNDS, dt_steps * GRID_S)
    half = dt_steps // 2
    q, v, way = start, np.zeros(7), []
    for i in range(len(target) - 2):
        w = (target[i + 2] - target[i + 1]) / (half * GRID_S)
        after, brakes = limiter.step(q, v, target[i + 2], w)
        motion = slew_then_brake(0, q, v, after, np.where(brakes, 0, dt_steps).tolist(),
                                 BOUNDS.acceleration)
        q, v = motion.state(half * GRID_NS)
        way.append(q)
    return np.array(way)


@pytest.mark.parametrize('distance', [1e-5, 1e-3, 0.05, 1.0])
def test_when_the_target_steps_far_expect_no_overshoot(distance: float) -> None:
    target = np.tile(HOME + distance * np.array([1, -0.9, 1, 1, -1, 1, 1]), (300, 1))
    way = follow(target, HOME)
    side = np.sign(target[0] - HOME)
    assert ((way - target[0]) * side <= 1e-5).all()
    np.testing.assert_allclose(way[-1], target[0], atol=1e-9)


def test_when_the_target_moves_evenly_expect_it_followed_without_a_limit_cycle() -> None:
    ticks = np.arange(300)[:, None]
    target = HOME + 0.3 + 0.002 * ticks * np.array([1, 1, 1, -1, 1, 1, 1])
    error = follow(target, HOME) - target[1:-1]
    assert np.abs(error[150:]).max() < 1e-6


def test_when_the_target_waves_expect_it_followed_closely() -> None:
    ticks = np.arange(600)[:, None]
    target = HOME + 0.2 * np.sin(2 * np.pi * ticks * 0.01 * 0.5)
    error = follow(target, HOME) - target[1:-1]
    assert np.abs(error[100:]).max() < 2e-3


@settings(max_examples=200)
@given(seeds, st.booleans())
def test_when_mirrored_expect_the_mirrored_step_and_room_to_brake_in(
    seed: int, near_an_end: bool
) -> None:
    """Without a curve, so that nothing but the room holds the joint back."""
    rng = np.random.default_rng(seed)
    lower, upper = -rng.uniform(0.2, 2.0), rng.uniform(0.2, 2.0)
    v_max, a_max, dt = rng.uniform(0.5, 3.0), rng.uniform(1.0, 20.0), rng.uniform(0.004, 0.04)
    joint = JointStep(lower, upper, v_max, a_max, None, dt)
    mirror = JointStep(-upper, -lower, v_max, a_max, None, dt)
    q, target, drift = rng.uniform(lower, upper), rng.uniform(-3.0, 3.0), rng.uniform(-2.0, 2.0)
    if near_an_end:
        q = lower + rng.uniform(0.0, 0.05)
    v = rng.uniform(-1.0, 1.0) * v_max
    v = min(max(v, -math.sqrt(2.0 * a_max * (q - lower))), math.sqrt(2.0 * a_max * (upper - q)))
    after, brakes = joint.step(q, v, target, drift)
    assert mirror.step(-q, -v, -target, -drift) == (-after, brakes)
    if not brakes:
        end = q + 0.5 * dt * (v + after)
        stop = after * abs(after) / (2.0 * a_max)
        assert lower - 1e-9 <= end + min(stop, 0.0)
        assert end + max(stop, 0.0) <= upper + 1e-9
