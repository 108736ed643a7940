# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard commands: plans knot by knot, joins, the limiter, stops, jitter and outages."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from fuzz_guard import episode
from guard_world import HOME, START_NS, GuardState, World, smooth_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.chunk import Chunk
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.trajectory import Trajectory

OPEN = {'start_jump': 10.0, 'trip_count': 100000}


def armed_world(**config: Any) -> World:
    world = World(GuardConfig(**config))
    world.arm()
    return world


def moving_world(**config: Any) -> tuple[World, Chunk]:
    """A world in the middle of a smooth plan of 2 s, at about half its way."""
    world = armed_world(**config)
    chunk = world.chunk(smooth_plan(HOME, np.full(7, 0.5), 41, 0.05))
    world.tick(chunks=(chunk,))
    world.ticks(95)
    assert world.core.state is GuardState.ARMED
    return world, chunk


class ReadOnly(list):  # type: ignore[type-arg]
    """Times that are found out when they are changed in place."""

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError('times of a motion were changed')

    __setitem__ = __delitem__ = __iadd__ = append = extend = insert = pop = _refuse


def test_when_a_guard_works_expect_no_motion_changed_once_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(self: Trajectory, ns: list[int], states: np.ndarray) -> None:
        assert all(type(t_ns) is int for t_ns in ns)
        self.ns, self.states = ReadOnly(ns), states.view()
        self.states.setflags(write=False)

    monkeypatch.setattr(Trajectory, '__init__', init)
    assert sum(episode(seed, ticks=150) for seed in range(8)) > 1000


def speed(world: World) -> float:
    return float(np.abs(world.commanded()[1]).max())


@pytest.mark.parametrize('period_s', [0.02, 1 / 30, 0.05, 0.1, 0.5])
def test_when_a_safe_plan_runs_expect_its_knots_published_bit_identical(period_s: float) -> None:
    world = armed_world(chunk_silence_s=10.0)
    steps = max(6, round(3 / period_s))
    data = smooth_plan(HOME, np.linspace(-0.4, 0.4, 7), steps, period_s)
    chunk = world.chunk(data, period_s)
    times = chunk.stamp_ns + np.rint(np.arange(steps) * (period_s * 1e9)).astype(np.int64)
    world.tick(chunks=(chunk,))
    seen = set()
    for _ in range(round(steps * period_s / 0.01) + 5):
        out = world.tick()
        assert out.trajectory is not None
        for i, t in enumerate(out.trajectory.times):
            k = int(np.searchsorted(times, t))
            if k < steps and times[k] == t and (out.trajectory.position[i] == data[k]).all():
                seen.add(k)
    joined = min(seen)
    assert joined * period_s <= 0.2 + period_s
    assert seen == set(range(joined, steps))
    np.testing.assert_allclose(world.commanded()[0], data[-1], atol=2e-3)


def test_when_plans_follow_each_other_expect_each_to_be_joined_without_the_limiter() -> None:
    world = armed_world()
    whole = smooth_plan(HOME, np.full(7, 1.0), 121, 0.05)
    for first in range(0, 80, 10):
        chunk = world.chunk(whole[first:first + 30])
        out = world.tick(chunks=(dataclasses.replace(
            chunk, stamp_ns=START_NS + 10**8 + first * 50_000_000),))
        assert out.reports[0].verdict == 'accepted'
        for _ in range(49):
            out = world.tick()
    at = int((world.ros_ns - START_NS - 10**8) // 50_000_000)
    assert np.abs(world.commanded()[0] - whole[at]).max() < 0.05
    assert world.core.counters.accepted == 8


def test_when_the_plan_ends_expect_a_stop_and_hold_at_rest() -> None:
    world, _ = moving_world()
    out = world.ticks(120)
    assert out.state is GuardState.HOLD
    assert out.reason == 'plan ended'
    assert speed(world) == 0.0


def test_when_a_plan_ends_in_motion_expect_braking_within_the_limits() -> None:
    world = armed_world()
    t = 0.05 * np.arange(21)[:, None]
    world.tick(chunks=(world.chunk(HOME + 0.4 * t * t * np.ones(7)),))
    out = world.ticks(140)
    assert out.state is GuardState.HOLD
    assert speed(world) == 0.0
    passed = world.commanded()[0] - (HOME + 0.4)
    np.testing.assert_allclose(passed, 0.78**2 / 20, atol=5e-3)


def test_when_holding_for_long_expect_the_very_same_position() -> None:
    world, _ = moving_world()
    world.tick(disarm=False)
    world.ticks(200)
    before = world.commanded()[0].copy()
    world.ticks(500)
    assert (world.commanded()[0] == before).all()
    assert len(world.outputs[-1].trajectory.times) <= 6


def test_when_the_guard_dies_expect_the_published_tail_to_end_in_time() -> None:
    world, _ = moving_world(horizon_s=0.1)
    trajectory = world.outputs[-1].trajectory
    braking_s = np.abs(trajectory.velocity).max() / 10.0
    assert (trajectory.end_ns - world.ros_ns) * 1e-9 <= 0.1 + 0.05 + braking_s + 0.002
    assert not trajectory.velocity[-1].any()


def test_when_a_plan_has_long_periods_expect_the_horizon_to_cut_inside_a_segment() -> None:
    world = armed_world()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.5), 8, 1.0), 1.0),))
    for _ in range(400):
        out = world.tick()
        braking_s = np.abs(out.trajectory.velocity).max() / 10.0
        if world.core._line.on_plan():
            first_join = 0.5 + 0.1
            assert (out.trajectory.end_ns - world.ros_ns) * 1e-9 <= first_join + braking_s


def test_when_a_chunk_is_late_by_more_than_the_horizon_expect_silence_to_hold() -> None:
    world, _ = moving_world(chunk_silence_s=1.2)
    out = world.ticks(60)
    assert out.state is GuardState.HOLD
    assert any(v.rule == 'chunk_silence' for o in world.outputs for v in o.violations)


def test_when_a_tick_is_late_expect_the_line_to_go_on_from_where_the_controller_is() -> None:
    world, chunk = moving_world()
    out = world.tick(0.2)
    assert out.state is GuardState.ARMED
    for _ in range(35):
        world.tick()
    q, _ = world.commanded()
    data, now = chunk.data, world.ros_ns
    i = (now - chunk.stamp_ns) // 50_000_000
    assert (data[i] - 1e-3 <= q).all()
    assert (q <= data[i + 1] + 1e-3).all()


def test_when_hold_is_ordered_on_the_move_expect_rest_within_the_braking_time() -> None:
    world, _ = moving_world()
    needed = world.config.lead_s + speed(world) / 10.0 + 3 * world.config.period_s
    world.tick(disarm=True)
    ticks = 1
    while world.core.state is GuardState.HOLD:
        world.tick()
        ticks += 1
    assert ticks * world.config.period_s <= needed


@pytest.mark.parametrize('distance', [0.02, 0.5, 1.5])
def test_when_the_target_steps_far_expect_it_reached_without_overshoot(distance: float) -> None:
    world = armed_world(**OPEN)
    side = np.array([1, -0.6, 1, 1, -1, 1, 1])
    target = HOME + distance * side
    world.tick(chunks=(world.chunk(np.tile(target, (60, 1))),))
    for _ in range(250):
        world.tick()
        assert ((world.commanded()[0] - target) * np.sign(side) <= 1e-5).all()
    np.testing.assert_allclose(world.commanded()[0], target, atol=1e-9)


def test_when_the_plan_exceeds_limits_expect_the_limiter_to_follow_it_and_count_clamped() -> None:
    world = armed_world(**OPEN)
    data = HOME + 0.4 * np.sin(np.arange(60)[:, None] * 0.05 * 8.0) * np.ones(7)
    out = world.tick(chunks=(world.chunk(data),))
    assert out.reports[0].verdict == 'clamped'
    assert {v.rule for v in out.violations} >= {'acceleration', 'velocity'}
    world.ticks(150)
    assert np.abs(world.commanded()[0] - HOME).max() > 0.05
    assert world.core.counters.clamped == 1


def test_when_mode_is_reject_expect_the_running_plan_finished() -> None:
    world = armed_world(mode='reject')
    good = world.chunk(smooth_plan(HOME, np.full(7, 0.3), 21, 0.05))
    world.tick(chunks=(good,))
    world.ticks(20)
    bad = world.chunk(HOME + 0.2 * (np.arange(20)[:, None] % 2) * np.ones(7))
    out = world.tick(chunks=(bad,))
    assert out.reports[0].verdict == 'refused'
    assert out.state is GuardState.ARMED
    out = world.ticks(150)
    assert out.state is GuardState.HOLD
    np.testing.assert_allclose(world.commanded()[0], good.data[-1], atol=1e-4)


def test_when_every_value_is_100_expect_no_motion_at_all() -> None:
    world = armed_world()
    for _ in range(100):
        out = world.tick(chunks=(world.chunk(np.full((50, 7), 100.0)),))
        assert out.reports[0].verdict == 'refused'
    assert (world.commanded()[0] == HOME).all()


def test_when_every_value_is_100_and_jumps_are_allowed_expect_the_soft_bounds_kept() -> None:
    world = armed_world(start_jump=10.0, trip_count=100000, soft_margin=0.01, max_lag_s=10.0,
                        chunk_silence_s=20.0)
    data = np.minimum(np.full((100, 7), 100.0), HOME + 9.0)
    world.tick(chunks=(world.chunk(data),))
    world.ticks(480)
    bounds = Bounds.of(world.limits, 0.01)
    assert (bounds.upper <= world.limits.upper - 0.01).all()
    np.testing.assert_allclose(world.commanded()[0], bounds.upper, atol=1e-4)


def test_when_a_new_session_comes_expect_the_old_one_replaced_and_refused() -> None:
    world, _ = moving_world()
    old_session, old_seq = world.session, world.seq
    world.session = 'b'
    start = world.commanded()[0]
    out = world.tick(chunks=(world.chunk(np.tile(start, (40, 1)) + 0.01),))
    assert out.reports[0].verdict == 'accepted'
    assert world.tick().execution.session_id == 'b'
    world.session, world.seq = old_session, old_seq
    out = world.tick(chunks=(world.chunk(np.tile(start, (40, 1))),))
    assert [v.rule for v in out.violations] == ['session']


def test_when_a_chunk_begins_later_expect_the_running_plan_until_then() -> None:
    world, first = moving_world()
    world.ticks(30)
    later = world.chunk(np.tile(first.data[-1], (30, 1)))
    later = dataclasses.replace(later, stamp_ns=int(first.stamp_ns + 2 * 10**9 + 10**8))
    out = world.tick(chunks=(later,))
    assert out.reports[0].verdict == 'accepted'
    assert out.execution.seq == first.seq
    out = world.ticks(95)
    assert out.execution.seq == later.seq
    assert out.state is GuardState.ARMED


def test_when_samples_pass_expect_them_counted_and_the_count_to_stop_in_hold() -> None:
    world, chunk = moving_world()
    e = world.outputs[-1].execution
    assert e.next_index == (world.ros_ns - chunk.stamp_ns) // 50_000_000 + 1
    assert e.consumed_total == e.next_index - 1
    world.ticks(120)
    total = world.outputs[-1].execution.consumed_total
    assert total == 40
    assert world.ticks(50).execution.consumed_total == total


def test_when_past_samples_are_skipped_expect_them_not_counted() -> None:
    world = armed_world()
    chunk = world.chunk(np.tile(HOME, (40, 1)))
    chunk = dataclasses.replace(chunk, stamp_ns=chunk.stamp_ns - 500_000_000)
    assert world.tick(chunks=(chunk,)).execution.consumed_total == 0
    assert world.ticks(10).execution.consumed_total == 2


def test_when_more_chunks_come_than_can_be_judged_expect_the_newest_and_a_report() -> None:
    world = armed_world()
    chunks = tuple(world.chunk(np.tile(HOME, (40, 1))) for _ in range(50))
    out = world.tick(chunks=chunks)
    assert len(out.reports) == 4
    assert out.reports[-1].seq == chunks[-1].seq
    assert [v.rule for v in out.violations] == ['flood']
    assert world.core.counters.refused == 46


def test_when_clean_chunks_come_between_expect_no_trip() -> None:
    world = armed_world(trip_count=3)
    bad = {'period_s': -1.0}
    for kind in (bad, bad, {}, bad, bad, {}):
        out = world.tick(chunks=(world.chunk(np.tile(HOME, (40, 1)), **kind),))
    assert out.state is GuardState.ARMED
    for _ in range(3):
        out = world.tick(chunks=(world.chunk(np.tile(HOME, (40, 1)), **bad),))
    assert out.state is GuardState.HOLD
    assert world.core.counters.rules['trip'] == 1


def test_when_tripped_expect_clamped_chunks_refused_until_a_clean_one() -> None:
    world = armed_world(trip_count=2, start_jump=10.0)
    wild = HOME + 0.2 * (np.arange(20)[:, None] % 2) * np.ones(7)
    told = []
    for _ in range(4):
        out = world.tick(chunks=(world.chunk(wild),))
        told += [v.rule for v in out.violations if v.rule == 'trip']
    assert told == ['trip']  # once
    assert out.state is GuardState.HOLD
    assert out.reports[0].verdict == 'refused'
    start = world.robot_state(world.ros_ns)[0]
    assert world.tick(chunks=(world.chunk(np.tile(start, (40, 1))),)).state is GuardState.ARMED
    assert world.tick(chunks=(world.chunk(wild),)).state is GuardState.ARMED


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(7)), st.integers(0, 2**32 - 1))
def test_when_chunk_joints_are_permuted_expect_the_same_command(
    order: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    data = HOME + np.cumsum(rng.normal(0, 0.02, (20, 7)), axis=0)
    commands = []
    for o in (list(range(7)), order):
        world = armed_world(**OPEN)
        names = tuple(world.limits.names[i] for i in o)
        world.tick(chunks=(world.chunk(data[:, o], joint_names=names),))
        world.ticks(40)
        commands.append(world.outputs[-1].trajectory)
    assert (commands[0].position == commands[1].position).all()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_when_fuzzed_expect_nothing_executed_beyond_a_limit(seed: int) -> None:
    assert episode(seed, ticks=150) > 0


def test_when_the_robot_starts_outside_its_limits_expect_only_motion_inward() -> None:
    start = HOME.copy()
    start[0] = 2.80
    world = World(GuardConfig(**OPEN), position=start)
    world.judge.limits = dataclasses.replace(
        world.limits, upper=np.maximum(world.limits.upper, start))
    world.arm()
    world.tick(chunks=(world.chunk(np.tile(start + 0.1, (40, 1))),))
    for _ in range(100):
        world.tick()
        assert world.commanded()[0][0] <= 2.80
    assert world.commanded()[0][0] <= 2.7437


def test_when_the_plan_has_ended_expect_the_published_tail_kept_as_it_was() -> None:
    world = armed_world()
    t = 0.05 * np.arange(21)[:, None]
    world.tick(chunks=(world.chunk(HOME + 0.4 * t * t * np.ones(7)),))
    out = world.tick()
    while out.state is GuardState.ARMED:
        before, out = out.trajectory, world.tick()
    after = out.trajectory
    kept = np.isin(after.times, before.times)
    assert np.count_nonzero(kept) >= 2
    assert after.velocity[kept].any()
    assert np.isin(after.times[after.velocity.any(axis=1)], before.times).all()


def test_when_armed_again_expect_the_count_of_samples_to_begin_anew() -> None:
    world, _ = moving_world()
    world.tick(disarm=True)
    world.ticks(60)
    assert world.core.state is GuardState.DISARMED
    world.judge.current = None
    assert world.tick(arm=True).execution.consumed_total == 0
