# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Jerk limits: stops and ways by Ruckig, plans checked at their knots, safe plans untouched."""

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
from guard_world import HOME, GuardState, World, fr3_limits, smooth_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from velocity_world import CONFIG as VELOCITY_CONFIG

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.guard import GuardCore
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.jerk import JerkMotion, acceleration_before
from vla_deploy.core.limits import JointLimits, LimitsError
from vla_deploy.core.outputs import OutputError, plan_outputs
from vla_deploy.core.trajectory import Trajectory, hermite_coefficients, trajectory_extrema

ruckig = pytest.importorskip('ruckig')
seeds = st.integers(0, 2**32 - 1)
JERKS = (50.0, 500.0, 5000.0)


def coefficients(motion: Trajectory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Acceleration at both ends, and jerk, of each segment."""
    p, v = motion.position, motion.velocity
    h = np.diff(motion.times)[:, None] * 1e-9
    a0, jerk = hermite_coefficients(p[:-1], p[1:], v[:-1], v[1:], h)
    return a0, a0 + jerk * h, jerk


def check_smooth(motion: Trajectory, limits: JointLimits, before: np.ndarray) -> None:
    """Jerk and acceleration within the limits, and no jump of acceleration but by the grid."""
    assert limits.jerk is not None
    assert np.diff(motion.times).min() >= 1_000_000
    start, end, jerk = coefficients(motion)
    assert (np.abs(jerk) <= limits.jerk * (1 + 1e-9) + 2e-5).all()
    assert (np.abs(start) <= limits.acceleration).all()
    assert (np.abs(end) <= limits.acceleration).all()
    jumps = np.abs(np.concatenate((start, np.zeros((1, 7)))) - np.concatenate((before[None], end)))
    # 4/27 of the change of jerk, at most twice the limit, in the segments on both sides.
    assert (jumps <= 0.6 * np.minimum(limits.jerk * 1e-3, 6 * limits.acceleration)).all()


def of_ruckig(limits: JointLimits, motion: JerkMotion, q: np.ndarray, v: np.ndarray,
              a: np.ndarray, t_s: float) -> list[float]:
    """Where Ruckig itself is at some time of a stop."""
    given = ruckig.InputParameter(7)
    given.control_interface = ruckig.ControlInterface.Velocity
    given.synchronization = ruckig.Synchronization.No
    given.current_position, given.current_velocity, given.current_acceleration = q, v, a
    given.target_velocity = [0.0] * 7
    given.max_velocity, given.max_acceleration = limits.velocity, motion.acceleration
    given.max_jerk = motion.jerk
    found = ruckig.Trajectory(7)
    ruckig.Ruckig(7).calculate(given, found)
    return list(found.at_time(min(t_s, found.duration))[0])


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(JERKS))
def test_when_stopping_expect_bounded_jerk_and_ruckigs_own_way(seed: int, jerk: float) -> None:
    rng = np.random.default_rng(seed)
    limits = fr3_limits(jerk=jerk)
    smooth = JerkMotion.of(limits, Bounds.of(limits, 0.005))
    assert smooth is not None
    q, v = rng.uniform(-1, 1, 7), rng.uniform(-1, 1, 7) * limits.velocity
    a = rng.uniform(-1, 1, 7) * smooth.acceleration * rng.integers(0, 2, 7)
    motion = smooth.stop(10**18, q, v, a)
    assert (motion.position[0] == q).all()
    assert (motion.velocity[0] == v).all()
    assert not motion.velocity[-1].any()
    check_smooth(motion, limits, a)
    for t_ns in np.linspace(motion.start_ns, motion.end_ns, 40).astype(np.int64):
        theirs = of_ruckig(limits, smooth, q, v, a, (int(t_ns) - 10**18) * 1e-9)
        np.testing.assert_allclose(motion.state(int(t_ns))[0], theirs, atol=1e-7)


def test_when_some_joints_have_no_jerk_limit_expect_the_others_kept() -> None:
    joints = fr3_limits(jerk=50.0).joints
    limits = JointLimits.of([dataclasses.replace(j, jerk=None if i % 2 else 50.0)
                             for i, j in enumerate(joints)])
    smooth = JerkMotion.of(limits, Bounds.of(limits, 0.005))
    assert smooth is not None
    motion = smooth.stop(0, HOME, np.full(7, 1.5), np.zeros(7))
    check_smooth(motion, limits, np.where(np.isinf(limits.jerk), coefficients(motion)[0][0], 0.0))
    assert motion.times[np.abs(motion.velocity[:, 1]).argmin()] < 0.3e9  # free to brake at once
    assert JerkMotion.of(fr3_limits(), Bounds.of(fr3_limits(), 0.005)) is None


def test_when_ruckig_is_missing_expect_one_line_only_if_a_jerk_limit_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'ruckig', None)
    with pytest.raises(LimitsError, match='ruckig is not installed: pip install ruckig'):
        GuardCore(fr3_limits(jerk=123.0), GuardConfig())
    GuardCore(fr3_limits(), GuardConfig())


def test_when_commanded_in_velocity_expect_jerk_limits_refused() -> None:
    with pytest.raises(LimitsError, match='do not go with control_mode velocity'):
        GuardCore(fr3_limits(jerk=50.0), VELOCITY_CONFIG)


def test_when_an_output_is_a_stream_of_positions_expect_jerk_limits_refused() -> None:
    with pytest.raises(OutputError, match="'position_array' of 't' cannot keep jerk limits"):
        plan_outputs(['t'], ['position_array'], [], ('a',), limits_jerk=True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Ruckig is asked for, in order: 'rest' or 'pass' for ways, 'stop' for stops."""
    made: list[str] = []
    reach, stop = JerkMotion.reach, JerkMotion.stop

    def counted_reach(self: JerkMotion, *given: Any, **how: Any) -> Trajectory | None:
        made.append('pass' if given[-1][1].any() else 'rest')
        return reach(self, *given, **how)

    def counted_stop(self: JerkMotion, *given: Any) -> Trajectory:
        made.append('stop')
        return stop(self, *given)

    monkeypatch.setattr(JerkMotion, 'reach', counted_reach)
    monkeypatch.setattr(JerkMotion, 'stop', counted_stop)
    return made


@pytest.mark.parametrize('off_grid_ns', [0, 1, 333_333, 999_999])
@pytest.mark.parametrize('jerk', JERKS)
def test_when_a_plan_is_safe_expect_every_knot_from_its_join_on_published_untouched(
    jerk: float, off_grid_ns: int, calls: list[str]
) -> None:
    world = World(limits=fr3_limits(jerk=jerk))
    world.arm()
    data = smooth_plan(HOME, np.full(7, 0.4), 41, 0.05)
    stamp_ns = world.ros_ns + 10_000_000 + off_grid_ns
    chunk = world.chunk(data, stamp_ns=stamp_ns)
    assert world.tick(chunks=(chunk,)).reports[0].verdict == 'accepted'
    assert calls == ['stop']  # the tail that will be needed first
    calls.clear()
    published: dict[int, np.ndarray] = {}
    for _ in range(215):
        out = world.tick()
        assert out.trajectory is not None
        published.update(zip(out.trajectory.times.tolist(), out.trajectory.position, strict=True))
    untouched = [np.array_equal(published.get(chunk.stamp_ns + i * 50_000_000), data[i])
                 for i in range(41)]
    joined = untouched.index(True)
    assert joined <= 4
    assert all(untouched[joined:])
    to_join = calls.index('stop')
    assert calls[to_join - 1] == 'pass'  # the way there, in the first tick where there is one
    assert to_join <= 5
    assert set(calls[to_join:]) == {'stop'}  # once joined, only tails are made
    assert len(calls) <= 46
    np.testing.assert_allclose(world.commanded()[0], data[-1], atol=5e-5)


def test_when_a_plan_stands_off_the_grid_expect_its_samples_taken(calls: list[str]) -> None:
    world = World(limits=fr3_limits(jerk=5000.0))
    world.arm()
    chunk = world.chunk(np.tile(HOME + 1e-4, (20, 1)), stamp_ns=world.ros_ns + 10_123_457)
    world.tick(chunks=(chunk,))
    out = world.ticks(4)
    assert 'pass' not in calls
    assert calls.count('rest') == 1
    assert out.trajectory is not None
    assert set(chunk.stamp_ns + np.arange(2, 4) * 50_000_000) <= set(out.trajectory.times.tolist())


def test_when_chunks_follow_each_other_off_the_grid_expect_each_joined_at_once(
    calls: list[str],
) -> None:
    world = World(limits=fr3_limits(jerk=5000.0))
    world.arm()
    data = smooth_plan(HOME, np.full(7, 0.5), 81, 0.05)
    start_ns = world.ros_ns + 10_123_457
    published: dict[int, np.ndarray] = {}
    rng = np.random.default_rng(5)
    for first in range(0, 64, 8):
        plan = data[first:first + 16] + rng.normal(0, 1e-3, 7)
        chunk = world.chunk(plan, stamp_ns=start_ns + first * 50_000_000)
        assert world.tick(chunks=(chunk,)).reports[0].verdict == 'accepted'
        for _ in range(39):
            out = world.tick()
            assert out.trajectory is not None
            published.update(zip(out.trajectory.times.tolist(), out.trajectory.position,
                                 strict=True))
        times = chunk.stamp_ns + np.arange(5, 8) * 50_000_000
        assert (np.array([published[int(t)] for t in times]) == plan[5:8]).all()
    assert calls.count('pass') == 8
    assert 'rest' not in calls


def test_when_samples_jerk_expect_the_rule_the_joint_and_the_sample() -> None:
    data = np.tile(HOME, (20, 1))
    data[:, 3] += 0.004 * np.sin(np.arange(20) * np.pi / 2)
    world = World(limits=fr3_limits(jerk=100.0))
    world.arm()
    out = world.tick(chunks=(world.chunk(data),))
    assert out.reports[0].verdict == 'clamped'
    (violation,) = out.violations
    assert (violation.rule, violation.joint, violation.unit) == ('jerk', 'fr3_joint4', 'rad/s^3')
    assert violation.value == pytest.approx(6 * 0.004 / 0.05**3)  # of the cubics between them
    free = World(limits=fr3_limits(jerk=1000.0))
    free.arm()
    assert free.tick(chunks=(free.chunk(data),)).reports[0].verdict == 'accepted'


def test_when_only_a_smooth_stop_passes_the_bound_expect_viability_named() -> None:
    bounds = Bounds.of(fr3_limits(), 0.005)
    data = np.tile(HOME, (20, 1))
    data[:, 0] = bounds.upper[0] - 0.12 + np.linspace(-1.0, 0.0, 20) * 0.75
    start = data[0]
    for jerk, verdict in ((None, 'accepted'), (20.0, 'clamped')):
        world = World(limits=fr3_limits(jerk=jerk), position=start)
        world.arm()
        out = world.tick(chunks=(world.chunk(data),))
        assert out.reports[0].verdict == verdict
    assert {v.rule for v in out.violations} == {'viability'}
    assert 'limited jerk' in out.violations[0].message


@pytest.mark.parametrize('jerk', JERKS)
def test_when_stopped_in_motion_expect_one_smooth_stop(jerk: float) -> None:
    world = World(limits=fr3_limits(jerk=jerk))
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.5), 31, 0.05)),))
    before = world.ticks(80).trajectory
    out = world.tick(estop_request=True)
    assert out.state is GuardState.ESTOP_LATCHED
    assert out.trajectory is not None
    splice = world.ros_ns + 20_000_000
    begin = int(out.trajectory.times.searchsorted(splice))
    stop = out.trajectory.knots(begin)
    assert np.abs(stop.velocity[0]).max() > 0.3
    assert before is not None
    check_smooth(stop, world.limits, acceleration_before(before, stop.start_ns))
    assert not stop.velocity[-1].any()
    assert world.tick().trajectory is None


def test_when_a_plan_is_clamped_expect_its_path_followed_smoothly_to_its_end() -> None:
    world = World(limits=fr3_limits(jerk=200.0))
    world.arm()
    rng = np.random.default_rng(3)
    data = smooth_plan(HOME, np.full(7, 0.5), 41, 0.05)
    noisy = data + rng.normal(0, 0.01, data.shape)
    noisy[-1] = data[-1]
    assert world.tick(chunks=(world.chunk(noisy),)).reports[0].verdict == 'clamped'
    worst = 0.0
    for i in range(230):
        out = world.tick()
        assert out.trajectory is not None
        planned = data[min(i * 10**7 // 50_000_000, 40)]
        worst = max(worst, float(np.abs(world.commanded()[0] - planned).max()))
    assert worst < 0.1
    assert np.abs(world.commanded()[0] - data[-1]).max() < 5e-3
    assert world.core.state is GuardState.HOLD


def test_when_a_clamped_plan_cannot_be_followed_expect_it_given_up() -> None:
    world = World(limits=fr3_limits(acceleration=1.0, jerk=10.0))
    world.arm()
    data = np.tile(HOME, (40, 1))
    data[:, 0] += np.minimum(np.linspace(0.0, 4.4, 40), 2.2)
    world.tick(chunks=(world.chunk(data),))
    rules = [v.rule for _ in range(200) for v in world.tick().violations]
    assert 'lag' in rules
    assert world.core.state is GuardState.HOLD


@settings(max_examples=12, deadline=None)
@given(seeds, st.sampled_from(JERKS))
def test_when_plans_are_hostile_expect_all_that_is_published_within_every_limit(
    seed: int, jerk: float
) -> None:
    rng = np.random.default_rng(seed)
    limits = fr3_limits(float(rng.choice([1.0, 10.0])), jerk)
    bounds = Bounds.of(limits, 0.005)
    near = np.where(rng.random(7) < 0.5, bounds.lower + 0.05, bounds.upper - 0.05)
    world = World(GuardConfig(trip_count=1000, start_jump=10.0, tick_gap_s=5.0), limits,
                  HOME if rng.random() < 0.5 else near)
    world.keep_outputs = False
    world.arm()
    around = world.position
    for _ in range(12):
        steps, kind = int(rng.integers(2, 30)), rng.integers(4)
        data = smooth_plan(around, rng.normal(0, 0.4, 7), steps, 0.05)
        if kind == 1:
            data = data + rng.normal(0, 0.05, data.shape)
        if kind == 2:
            data = np.full((steps, 7), rng.choice([100.0, -1e308]))
        world.tick(chunks=(world.chunk(data),))
        for _ in range(int(rng.integers(3, 30))):
            late = 20.0 if rng.random() < 0.03 else float(2.0 ** rng.uniform(-2, 2))
            out = world.tick(late * world.config.period_s)
        if out.execution.commanded_position is not None:
            around = out.execution.commanded_position
        if rng.random() < 0.1:
            world.tick(disarm=True)
            world.ticks(150)
            world.judge.current = None
            world.tick(arm=True)


def test_when_asked_before_a_knot_expect_the_acceleration_that_leads_there() -> None:
    motion = Trajectory.of(np.array([0, 10**9, 2 * 10**9]), np.array([[0.0], [0.5], [1.5]]),
                        np.array([[0.0], [1.0], [1.0]]))
    assert acceleration_before(motion, 10**9) == pytest.approx([1.0])
    assert acceleration_before(motion, 15 * 10**8) == pytest.approx([0.0])
    assert acceleration_before(motion, 0) == pytest.approx([0.0])
    assert acceleration_before(motion, 3 * 10**9) == pytest.approx([0.0])
    assert trajectory_extrema(motion).acceleration.max() == pytest.approx(1.0)


@pytest.mark.parametrize('which', [1, 2])
def test_when_a_target_is_beyond_what_is_left_of_a_limit_expect_no_way(which: int) -> None:
    limits = fr3_limits(jerk=5000.0)
    smooth = JerkMotion.of(limits, Bounds.of(limits, 0.005))
    assert smooth is not None
    for part, possible in ((0.9, True), (1.0, False)):
        target = [HOME + 0.1, np.zeros(7), np.zeros(7)]
        target[which] = part * (limits.velocity if which == 1 else limits.acceleration)
        way = smooth.reach(0, HOME, np.zeros(7), np.zeros(7), 0.5, tuple(target))
        assert (way is not None) is possible


def test_when_a_plan_begins_near_the_limit_of_acceleration_expect_it_joined_or_followed() -> None:
    limits = fr3_limits(jerk=5000.0)
    for share in (0.90, 0.94, 0.96, 0.98):
        world = World(GuardConfig(knot_scale=1.0), limits)
        world.arm()
        t = np.arange(12) * 0.05
        data = HOME + np.outer(0.5 * share * 10.0 * np.minimum(t, 0.2) ** 2, np.eye(7)[4])
        data[5:, 4] = data[4, 4] + share * 10.0 * 0.2 * (t[5:] - 0.2) * 0.5
        world.tick(chunks=(world.chunk(data),))
        world.ticks(60)
        assert world.core.state in (GuardState.ARMED, GuardState.HOLD)


def test_when_a_plan_that_stands_is_stopped_expect_the_robot_to_go_on_standing() -> None:
    world = World(limits=fr3_limits(jerk=50.0))
    world.arm()
    world.tick(chunks=(world.chunk(np.tile(HOME, (40, 1))),))
    assert world.ticks(10).state is GuardState.ARMED
    out = world.tick(estop_request=True)
    assert out.trajectory is not None
    assert (out.trajectory.position == HOME).all()


def test_when_the_way_to_a_target_would_swing_past_the_bound_expect_a_slower_one() -> None:
    limits = fr3_limits(jerk=50.0)
    bounds = Bounds.of(limits, 0.005)
    start = HOME.copy()
    start[0] = bounds.upper[0] - 0.02
    world = World(GuardConfig(start_jump=10.0), limits, start)
    world.arm()
    data = np.tile(start, (40, 1))
    data[:, 0] += 0.3 * np.sign(np.sin(np.arange(40)))
    assert world.tick(chunks=(world.chunk(data),)).reports[0].verdict == 'clamped'
    world.ticks(150)  # the judge holds all of it against every limit
    assert world.core.worst_margin >= 0.0


def test_when_a_plan_has_three_samples_expect_the_jerk_of_its_cubics_judged() -> None:
    data = np.tile(HOME, (3, 1))
    data[1, 0] += 0.004
    for jerk, verdict in ((5000.0, 'accepted'), (50.0, 'clamped')):
        world = World(limits=fr3_limits(jerk=jerk))
        world.arm()
        assert world.tick(chunks=(world.chunk(data),)).reports[0].verdict == verdict


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from(JERKS))
def test_when_a_way_leads_to_rest_at_any_time_expect_jerk_bounded_to_its_end(
    seed: int, jerk: float
) -> None:
    rng = np.random.default_rng(seed)
    limits = fr3_limits(float(rng.choice([1.0, 10.0, 20.0])), jerk)
    smooth = JerkMotion.of(limits, Bounds.of(limits, 0.0))
    assert smooth is not None
    q, v = rng.uniform(-1, 1, 7), rng.uniform(-0.3, 0.3, 7) * limits.velocity
    a = rng.uniform(-1, 1, 7) * smooth.acceleration * rng.integers(0, 2, 7)
    rest = np.zeros(7)
    way = smooth.reach(0, q, v, a, 0.08, (q + rng.normal(0, 0.1, 7), rest, rest))
    assert way is not None
    _, _, found = coefficients(way)
    assert (np.abs(found) <= smooth.jerk * (1 + 1e-9) + 2e-5).all()
