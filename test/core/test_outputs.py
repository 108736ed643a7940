# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which joints go where, and streams of positions under jitter, outages and stops."""

import dataclasses
import math

import numpy as np
import pytest
from guard_world import HOME, GuardState, World, fr3_limits, smooth_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.outputs import (
    DeadBand,
    OutputDetails,
    OutputError,
    check_hysteresis,
    plan_outputs,
)
from vla_deploy.core.stream import PositionStream, room_speed
from vla_deploy.core.trajectory import Trajectory, at_rest

GUARDED = ('a', 'b', 'c')
BOUNDS = Bounds.of(fr3_limits(), 0.005)
seeds = st.integers(0, 2**32 - 1)


def test_when_nothing_is_said_expect_one_output_of_all_joints_that_copies_nothing() -> None:
    (output,) = plan_outputs(['t'], ['trajectory'], [], GUARDED)
    assert output.joints == GUARDED
    motion = at_rest(0, np.arange(3.0))
    assert output.part(motion) is motion


def test_when_joints_are_split_expect_each_output_in_its_own_order() -> None:
    first, second = plan_outputs(['t', 'u'], ['trajectory', 'position_array'], ['c, a', 'b'],
                                 GUARDED)
    motion = at_rest(0, np.arange(3.0))
    assert first.part(motion).position.tolist() == [[2.0, 0.0]]
    assert second.part(motion).position.tolist() == [[1.0]]
    assert second.output_type == 'position_array'


@pytest.mark.parametrize(('topics', 'types', 'joints', 'says'), [
    ([], [], [], 'output_topics is empty'),
    (['t'], [], [], 'output_types has 0'),
    (['t', 'u'], ['trajectory'] * 2, [], 'output_joints has 0'),
    (['t', 't'], ['trajectory'] * 2, ['a,b', 'c'], "'t' is empty or given twice"),
    (['t'], ['velocity'], [], "'velocity' is not one of"),
    (['t'], ['velocity_array'], [], "'velocity_array' of 't' does not go with control_mode 'pos"),
    (['t'], ['trajectory'], ['a,b,d'], "'d' of 't' is not under guard"),
    (['t'], ['trajectory'], ['a,b'], "'c' is in no output"),
    (['t', 'u'], ['trajectory'] * 2, ['a,b', 'b,c'], "'b' is in 't' and in 'u'"),
])
def test_when_outputs_are_wrong_expect_one_line_that_names_it(
    topics: list[str], types: list[str], joints: list[str], says: str
) -> None:
    with pytest.raises(OutputError, match=says):
        plan_outputs(topics, types, joints, GUARDED)


def test_when_the_robot_is_commanded_in_velocity_expect_outputs_of_velocities_only() -> None:
    (output,) = plan_outputs(['t'], ['velocity_array'], [], GUARDED, 'velocity')
    assert output.output_type == 'velocity_array'
    with pytest.raises(OutputError, match="'trajectory' of 't' does not go with control_mode 'vel"):
        plan_outputs(['t'], ['trajectory'], [], GUARDED, 'velocity')


VENDOR = {'types': ['interbotix_group', 'interbotix_single'], 'joints': ['a,b', 'c']}


@pytest.mark.parametrize(('details', 'says'), [
    ({'names': ['arm']}, 'output_names has 1 entries, output_topics 2'),
    ({'names': ['arm', '']}, "'interbotix_single' of 'u' needs the name"),
    ({'names': ['arm', 'g'], 'scales': [1.0, 0.0]}, "'u': scale must not be 0"),
    ({'names': ['arm', 'g'], 'scales': [1.0, math.nan]}, "output_scales: nan of 'u' is not finite"),
    ({'names': ['arm', 'g'], 'hysteresis': [0.0, -0.1]}, 'nor hysteresis below it'),
])
def test_when_details_are_wrong_expect_the_parameter_named(
    details: dict[str, list[float]], says: str
) -> None:
    with pytest.raises(OutputError, match=says):
        plan_outputs(['t', 'u'], VENDOR['types'], VENDOR['joints'], GUARDED,
                     details=OutputDetails(**details))


def test_when_details_do_not_go_with_an_output_expect_a_refusal() -> None:
    with pytest.raises(OutputError, match="'trajectory' of 't' takes no scale"):
        plan_outputs(['t'], ['trajectory'], [], GUARDED, details=OutputDetails(scales=[2.0]))
    with pytest.raises(OutputError, match="'position_array' of 't' has no name"):
        plan_outputs(['t'], ['position_array'], [], GUARDED, details=OutputDetails(names=['arm']))
    with pytest.raises(OutputError, match="'t' is for one joint, not 3"):
        plan_outputs(['t'], ['interbotix_single'], [], GUARDED, details=OutputDetails(names=['g']))


def test_when_a_gripper_trembles_expect_it_kept_and_scaled_until_it_really_moves() -> None:
    _, gripper = plan_outputs(
        ['t', 'u'], VENDOR['types'], VENDOR['joints'], GUARDED,
        details=OutputDetails(['arm', 'g'], [1.0, 50.0], [0.0, -1.0], [0.0, 0.01]))
    band = DeadBand(gripper)
    sent = [float(band.command(np.array([0.0, 0.0, position]))[0])
            for position in (0.02, 0.029, 0.011, 0.0305, 0.025, 0.0)]
    assert sent == pytest.approx([0.0, 0.0, 0.0, 0.525, 0.525, -1.0])
    check_hysteresis((gripper,), np.array([1.0, 1.0, 2.0]), 0.01)
    with pytest.raises(OutputError, match="output_hysteresis of 'u' is 0.01, more than c may"):
        check_hysteresis((gripper,), np.array([1.0, 1.0, 0.5]), 0.01)


class Watch:
    """Holds a stream against the limits, each message executed at once."""

    def __init__(self, period_s: float) -> None:
        self.period_s, self.q, self.v = period_s, None, np.zeros(7)

    def receive(self, q: np.ndarray, elapsed_s: float) -> None:
        assert (q >= fr3_limits().lower).all()
        assert (q <= fr3_limits().upper).all()
        if self.q is not None:
            dt = min(elapsed_s, self.period_s)
            v = (q - self.q) / dt
            assert (np.abs(v) <= fr3_limits().velocity * (1 + 1e-6)).all()
            assert (np.abs(v - self.v) <= 10.0 * dt * (1 + 1e-6) + 1e-9).all()
            self.v = v
        self.q = q


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_when_ticks_jitter_and_fail_expect_the_stream_within_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream, watch = PositionStream(BOUNDS, 0.01), Watch(0.01)
    now = 10**18
    q = rng.uniform(BOUNDS.lower, BOUNDS.upper)
    motion = at_rest(now, q)
    for i in range(300):
        elapsed_ns = round(1e7 * 2.0 ** rng.uniform(-2, 2) * (30 if rng.random() < 0.03 else 1))
        now += elapsed_ns
        if i % 20 == 0:
            target = rng.uniform(BOUNDS.lower, BOUNDS.upper)
            knots = np.stack((motion.state(now)[0], target))
            motion = Trajectory.of(np.array([now, now + 10**8]), knots, np.zeros((2, 7)))
        sent = stream.step(now, motion)
        assert sent is not None
        watch.receive(sent, elapsed_ns * 1e-9)


def test_when_a_guarded_plan_is_streamed_expect_it_followed_closely() -> None:
    world = World()
    stream, watch = PositionStream(BOUNDS, 0.01), Watch(0.01)
    world.arm()
    data = smooth_plan(HOME, np.full(7, 0.6), 41, 0.05)
    world.tick(chunks=(world.chunk(data),))
    for _ in range(230):
        out = world.tick()
        sent = stream.step(world.ros_ns, out.trajectory)
        watch.receive(sent, 0.01)
        np.testing.assert_allclose(sent, world.commanded()[0], atol=5e-4)
    np.testing.assert_allclose(sent, data[-1], atol=1e-4)


def test_when_stopped_by_estop_expect_the_stream_to_brake_and_then_silence() -> None:
    world = World()
    stream, watch = PositionStream(BOUNDS, 0.01), Watch(0.01)
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.6), 41, 0.05)),))
    for i in range(160):
        out = world.tick(estop=i >= 100)
        sent = stream.step(world.ros_ns, out.trajectory)
        if sent is not None:
            watch.receive(sent, 0.01)
            last = i
    assert out.state is GuardState.ESTOP_LATCHED
    assert 105 < last < 140
    assert np.abs(watch.v).max() < 1e-6


def test_when_the_clock_is_set_back_expect_the_stream_to_go_on_within_the_limits() -> None:
    world = World()
    stream, watch = PositionStream(BOUNDS, 0.01), Watch(0.01)
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.6), 41, 0.05)),))
    back_ns = 0
    for i in range(200):
        out = world.tick(estop=i >= 100)
        if i == 105:
            back_ns = 5 * 10**9
        sent = stream.step(world.ros_ns - back_ns, out.trajectory)
        if sent is not None:
            watch.receive(sent, 0.01)
            last, end = i, sent
    assert 110 < last < 140
    (*_, motion) = (o.trajectory for o in world.outputs if o.trajectory is not None)
    np.testing.assert_allclose(end, motion.position[-1], atol=1e-6)


def test_when_bounds_are_drawn_inside_the_end_of_the_motion_expect_the_stream_to_end() -> None:
    stream, watch = PositionStream(BOUNDS, 0.01), Watch(0.01)
    now = 10**18
    motion = Trajectory.of(np.array([now, now + 5 * 10**8]), np.stack((HOME, HOME + 0.1)),
                        np.zeros((2, 7)))
    watch.receive(stream.step(now, motion), 0.01)
    for _ in range(40):
        now += 10**7
        watch.receive(stream.step(now, None), 0.01)
    stream.bounds = dataclasses.replace(BOUNDS, upper=watch.q + 1e-4)
    silent = 0
    for _ in range(100):
        now += 10**7
        sent = stream.step(now, None)
        silent += sent is None
        if sent is not None:
            watch.receive(sent, 0.01)
    assert silent > 30
    assert not stream.goes_on
    moved = at_rest(now + 10**7, HOME - 0.5)
    np.testing.assert_array_equal(stream.step(now + 10**7, moved), HOME - 0.5)


def test_when_two_steps_fall_on_one_instant_expect_one_message() -> None:
    stream = PositionStream(BOUNDS, 0.01)
    assert stream.step(5, at_rest(5, HOME)) is not None
    assert stream.step(5, at_rest(5, HOME)) is None


def exact_discrete(room: float, a: float, dt: float) -> float:
    """Largest v' from which braking by exactly a * dt a tick, every dt, just uses up the room."""
    if room <= 0.0:
        return 0.0
    n = math.floor(0.5 * (math.sqrt(1.0 + 8.0 * room / (a * dt * dt)) - 1.0) + 1e-12)
    return (room / dt + 0.5 * n * (n + 1) * a * dt) / (n + 1)


def worst_overshoot(bound: str, seed: int) -> float:
    """How far a joint passes 1.0 rad, driven at it with ticks that jitter by 10 %."""
    rng = np.random.default_rng(seed)
    a, v_max, nominal = 10.0, 5.0, 0.02
    worst = -1.0
    for _ in range(20):
        q, v = float(rng.uniform(-1.0, 0.0)), 0.0
        for _ in range(120):
            dt = nominal * (1.0 + float(rng.uniform(-0.1, 0.1)))
            if bound == 'ours':
                most = float(room_speed(np.array([1.0 - q]), np.array([a]), dt)[0])
            else:
                most = exact_discrete(1.0 - q, a, dt)
            v = min(max(min(most, v_max), v - a * dt), v + a * dt)
            q += v * dt
            worst = max(worst, q - 1.0)
    return worst


def test_when_ticks_jitter_expect_the_exact_discrete_curve_to_fail_and_ours_to_hold() -> None:
    assert max(worst_overshoot('exact', seed) for seed in range(3)) > 1e-3
    assert max(worst_overshoot('ours', seed) for seed in range(3)) <= 1e-9
