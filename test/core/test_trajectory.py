# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Trajectory: evaluation, splitting and analytic extrema."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.trajectory import (
    Trajectory,
    at_rest,
    cubic_hull,
    segment_hull,
    trajectory_extrema,
)

seeds = st.integers(0, 2**32 - 1)


def random_trajectory(seed: int, knots: int = 5, joints: int = 3) -> Trajectory:
    rng = np.random.default_rng(seed)
    times = 10**18 + np.cumsum(rng.integers(10**6, 10**9, knots))
    shape = knots, joints
    return Trajectory.of(times, rng.normal(0, 1, shape), rng.normal(0, 2, shape))


def dense(trajectory: Trajectory, i: int, count: int = 300) -> tuple[np.ndarray, ...]:
    span = int(trajectory.times[i + 1] - trajectory.times[i])
    times = trajectory.times[i] + np.linspace(0, span - 1, count).astype(np.int64)
    q, v, a = zip(*(trajectory.sample(int(t)) for t in times), strict=True)
    return np.array(q), np.array(v), np.array(a)


def test_when_sampled_at_knots_expect_them_bit_identical() -> None:
    t = random_trajectory(1)
    for i, time in enumerate(t.times):
        q, v, _ = t.sample(int(time))
        assert (q == t.position[i]).all()
        assert (v == t.velocity[i]).all()


def test_when_outside_expect_first_and_last_position_at_rest() -> None:
    t = random_trajectory(2)
    for time, i in ((t.start_ns - 1, 0), (t.end_ns + 1, -1)):
        q, v, a = t.sample(time)
        assert (q == t.position[i]).all()
        assert not v.any()
        assert not a.any()


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_when_sampled_densely_expect_nothing_beyond_the_extrema(seed: int) -> None:
    t = random_trajectory(seed)
    e = trajectory_extrema(t)
    for i in range(2):
        q, v, a = dense(t, i)
        scale = 1.0 + np.abs(a).max()
        assert (q.min(axis=0) >= e.lower[i] - 1e-9).all()
        assert (q.max(axis=0) <= e.upper[i] + 1e-9).all()
        assert (np.abs(v).max(axis=0) <= e.speed[i] + 1e-9 * scale).all()
        assert (np.abs(a).max(axis=0) <= e.acceleration[i] + 1e-9 * scale).all()


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_when_sampled_densely_expect_the_extrema_to_be_reached(seed: int) -> None:
    t = random_trajectory(seed)
    e = trajectory_extrema(t)
    for i in range(2):
        q, v, _ = dense(t, i)
        span = 1.0 + q.max(axis=0) - q.min(axis=0)
        assert (np.abs(q.min(axis=0) - e.lower[i]) <= 3e-3 * span).all()
        assert (np.abs(q.max(axis=0) - e.upper[i]) <= 3e-3 * span).all()
        assert (np.abs(np.abs(v).max(axis=0) - e.speed[i]) <= 3e-2 * (1 + e.speed[i])).all()


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_when_hull_is_taken_expect_the_extrema_inside(seed: int) -> None:
    t = random_trajectory(seed)
    h = np.diff(t.times)[:, None] * 1e-9
    p, v = t.position, t.velocity
    hull = segment_hull(p[:-1], p[1:], v[:-1], v[1:], np.diff(p, axis=0) / h, h)
    e = trajectory_extrema(t)
    speed = np.maximum(hull.inner_speed, np.maximum(np.abs(t.velocity[:-1]),
                                                    np.abs(t.velocity[1:])))
    assert (hull.lower <= e.lower + 1e-9).all()
    assert (hull.upper >= e.upper - 1e-9).all()
    assert (speed >= e.speed * (1 - 1e-9)).all()
    np.testing.assert_allclose(hull.acceleration, e.acceleration, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_when_one_cubic_is_looked_at_expect_the_hull_of_its_segment_to_the_bit(seed: int) -> None:
    t = random_trajectory(seed)
    h = float(t.times[1] - t.times[0]) * 1e-9
    p, v = t.position[:2], t.velocity[:2]
    hull = segment_hull(p[:1], p[1:], v[:1], v[1:], (p[1:] - p[:1]) / h, h)
    for j, ends in enumerate(zip(*p.tolist(), *v.tolist(), strict=True)):
        assert cubic_hull(*ends, h) == (
            hull.lower[0, j], hull.upper[0, j], hull.inner_speed[0, j], hull.acceleration[0, j])


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.001, 0.999))
def test_when_split_expect_the_same_motion(seed: int, part: float) -> None:
    t = random_trajectory(seed)
    cut = int(t.start_ns + part * (t.end_ns - t.start_ns))
    before, after = t.split(cut)
    assert before.end_ns == after.start_ns == cut
    for time in t.start_ns + np.linspace(0, t.end_ns - t.start_ns - 1, 30).astype(np.int64):
        piece = before if time < cut else after
        np.testing.assert_allclose(piece.sample(int(time))[0], t.sample(int(time))[0], atol=1e-9)
        np.testing.assert_allclose(piece.sample(int(time))[1], t.sample(int(time))[1], atol=1e-6)


def test_when_split_outside_expect_an_error() -> None:
    t = random_trajectory(3)
    with pytest.raises(ValueError, match='inside'):
        t.split(t.end_ns)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(-0.1, 1.1))
def test_when_state_is_asked_expect_what_sample_says(seed: int, part: float) -> None:
    t = random_trajectory(seed)
    time = int(t.start_ns + part * (t.end_ns - t.start_ns))
    q, v = t.state(time)
    np.testing.assert_allclose(q, t.sample(time)[0], atol=1e-12)
    np.testing.assert_allclose(v, t.sample(time)[1], atol=1e-9)


def test_when_standing_between_two_equal_knots_expect_the_very_same_position() -> None:
    q = np.array([0.1, -2.3, 1.7])
    t = at_rest(0, q).then(at_rest(10**9, q))
    for time in range(0, 10**9, 12_345_678):
        assert (t.state(time)[0] == q).all()
        assert (t.sample(time)[0] == q).all()


def test_when_values_are_not_finite_expect_no_extremum_that_passes_a_comparison() -> None:
    t = random_trajectory(4)
    position = t.position.copy()
    position[2, 1] = np.nan
    e = trajectory_extrema(Trajectory.of(t.times, position, t.velocity))
    for values in (e.lower, e.upper, e.speed, e.acceleration):
        assert not (values[1:3, 1] <= 1e300).any()


def test_when_split_at_a_knot_expect_that_very_knot_in_both_parts() -> None:
    t = random_trajectory(2)
    before, after = t.split(int(t.times[1]))
    assert (before.end_ns, after.start_ns) == (t.times[1], t.times[1])
    assert (before.position[-1] == t.position[1]).all()
    assert (after.velocity == t.velocity[1:]).all()
