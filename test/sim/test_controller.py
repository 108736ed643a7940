# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The behaviours of joint_trajectory_controller, one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.sim.controller import (
    ControllerConfig,
    Trajectory,
    TrajectoryController,
    TrajectoryPoint,
    TrajectoryRefusedError,
)
from vla_deploy.sim.spline import JointMotion

S = 1_000_000_000
NOW = 100 * S
NAMES = ('shoulder', 'elbow')
REST = JointMotion.at_rest(np.zeros(2))


def point(seconds, position, velocity=(), acceleration=(), effort=()):
    return TrajectoryPoint(round(seconds * S), position, velocity, acceleration, effort)


def trajectory(*points, stamp_ns=0, names=NAMES):
    return Trajectory(stamp_ns, names, points)


def controller(**config):
    return TrajectoryController(NAMES, np.zeros(2), ControllerConfig(**config))


def sampled(control, seconds):
    return control.sample(NOW + round(seconds * S))


number = st.floats(-3.0, 3.0)


@settings(max_examples=80, deadline=None)
@given(p0=number, v0=number, p1=number, v1=number, part=st.floats(0.0, 1.0))
def test_when_points_carry_velocities_expect_the_cubic_hermite(p0, v0, p1, v1, part):
    control = controller()
    rest = point(2.0, (0.0, 0.0), (0.0, 0.0))
    control.accept(
        trajectory(point(0.0, (p0, 0), (v0, 0)), point(0.5, (p1, 0), (v1, 0)), rest), NOW, REST
    )
    part = round(part * 0.5 * S) / (0.5 * S)  # times are whole nanoseconds
    basis = (
        (1 + 2 * part) * (1 - part) ** 2,
        part * (1 - part) ** 2,
        part**2 * (3 - 2 * part),
        part**2 * (part - 1),
    )
    expected = basis[0] * p0 + basis[1] * 0.5 * v0 + basis[2] * p1 + basis[3] * 0.5 * v1
    assert sampled(control, part * 0.5).position[0] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    ends=st.lists(number, min_size=6, max_size=6), duration=st.floats(0.2, 3.0)
)
def test_when_points_carry_accelerations_expect_a_quintic_that_meets_both_ends(ends, duration):
    p0, v0, a0, p1, v1, a1 = ends
    control = controller()
    last = point(10.0, (0, 0), (0, 0), (0, 0))
    first = point(0.0, (p0, 0), (v0, 0), (a0, 0))
    second = point(duration, (p1, 0), (v1, 0), (a1, 0))
    control.accept(trajectory(first, second, last), NOW, REST)
    begin = control.sample(NOW)
    end = control.sample(NOW + second.time_from_start_ns - 1)  # inside the segment, by 1 ns
    for motion, wanted in ((begin, (p0, v0, a0)), (end, (p1, v1, a1))):
        got = (motion.position[0], motion.velocity[0], motion.acceleration[0])
        assert got == pytest.approx(wanted, abs=2e-4)


def test_when_points_carry_positions_only_expect_straight_lines():
    control = controller()
    control.accept(trajectory(point(0.0, (0.0, 1.0)), point(2.0, (1.0, -1.0))), NOW, REST)
    motion = sampled(control, 0.5)
    assert motion.position == pytest.approx((0.25, 0.5))
    assert motion.velocity == pytest.approx((0.5, -1.0))
    assert motion.acceleration == pytest.approx((0.0, 0.0))


def test_when_one_end_of_a_segment_lacks_velocities_expect_a_straight_line():
    control = controller()
    control.accept(
        trajectory(point(0.0, (0.0, 0.0), (1.0, 1.0)), point(1.0, (1.0, 2.0))), NOW, REST
    )
    assert sampled(control, 0.25).position == pytest.approx((0.25, 0.5))


def test_when_the_stamp_is_zero_expect_the_start_at_reception():
    control = controller()
    control.accept(trajectory(point(0.0, (1.0, 1.0)), point(1.0, (2.0, 2.0))), NOW, REST)
    assert sampled(control, 0.0).position == pytest.approx((1.0, 1.0))
    assert sampled(control, 1.0).position == pytest.approx((2.0, 2.0))


def test_when_the_stamp_lies_slightly_in_the_past_expect_the_segment_of_now():
    control = controller()
    points = [point(0.1 * i, (0.1 * i, 0.0)) for i in range(5)]
    control.accept(trajectory(*points, stamp_ns=NOW - round(0.25 * S)), NOW, REST)
    assert sampled(control, 0.0).position[0] == pytest.approx(0.25)
    assert sampled(control, 0.1).position[0] == pytest.approx(0.35)


def test_when_the_first_point_is_in_the_future_expect_a_cubic_from_the_measured_state():
    control = controller()
    measured = JointMotion(np.array([0.2, 0.0]), np.array([0.4, 0.0]), np.zeros(2))
    later = trajectory(
        point(0.0, (1.0, 0.0), (0.0, 0.0)), point(1.0, (1.0, 0.0), (0.0, 0.0)),
        stamp_ns=NOW + S,
    )
    control.accept(later, NOW, measured)
    begin, middle = sampled(control, 0.0), sampled(control, 0.5)
    assert begin.position[0] == pytest.approx(0.2)
    assert begin.velocity[0] == pytest.approx(0.4)
    assert middle.position[0] == pytest.approx((0.2 + 1.0) / 2 + 0.4 / 8)
    assert sampled(control, 1.5).position[0] == pytest.approx(1.0)


def test_when_a_trajectory_replaces_one_before_it_starts_expect_the_old_one_dropped_at_once():
    control = controller()
    control.accept(trajectory(point(0.0, (0, 0)), point(1.0, (1.0, 0))), NOW, REST)
    sampled(control, 0.5)
    measured = JointMotion.at_rest(np.array([0.5, 0.0]))
    new = trajectory(point(0.0, (0.5, 0.0)), point(1.0, (0.0, 0.0)), stamp_ns=NOW + S)
    control.accept(new, NOW + S // 2, measured)
    assert sampled(control, 0.75).position[0] == pytest.approx(0.5)


def test_when_interpolating_from_the_desired_state_expect_the_last_command_not_the_measured():
    measured = JointMotion.at_rest(np.array([0.9, 0.9]))
    begin = {}
    for desired in (False, True):
        control = controller(interpolate_from_desired_state=desired)
        control.accept(trajectory(point(0.0, (0, 0)), point(1.0, (0.4, 0.4))), NOW, REST)
        sampled(control, 0.5)
        new = trajectory(point(1.0, (0.0, 0.0)))
        control.accept(new, NOW + S // 2, measured)
        begin[desired] = sampled(control, 0.5).position[0]
    assert begin[True] == pytest.approx(0.2)
    assert begin[False] == pytest.approx(0.9)


def test_when_the_last_point_has_passed_expect_it_held():
    control = controller()
    control.accept(trajectory(point(0.0, (0, 0)), point(1.0, (1.0, 2.0))), NOW, REST)
    motion = sampled(control, 50.0)
    assert motion.position == pytest.approx((1.0, 2.0))
    assert motion.velocity == pytest.approx((0.0, 0.0))


def test_when_nothing_has_come_expect_the_first_position_held():
    control = TrajectoryController(NAMES, np.array([0.3, -0.3]))
    assert control.sample(NOW).position == pytest.approx((0.3, -0.3))


def test_when_time_steps_back_before_the_trajectory_expect_the_last_command():
    control = controller()
    control.accept(trajectory(point(0.0, (1, 1)), point(1.0, (2.0, 2.0))), NOW, REST)
    sampled(control, 0.5)
    assert sampled(control, -5.0).position == pytest.approx((1.5, 1.5))


def test_when_names_are_permuted_expect_values_by_name():
    control = controller()
    control.accept(
        trajectory(
            point(0.0, (1.0, 2.0), (0.0, 0.0)), point(1.0, (3.0, 4.0), (0.0, 0.0)),
            names=('elbow', 'shoulder'),
        ),
        NOW,
        REST,
    )
    assert sampled(control, 0.0).position == pytest.approx((2.0, 1.0))
    assert sampled(control, 1.0).position == pytest.approx((4.0, 3.0))


def test_when_told_to_hold_expect_the_trajectory_forgotten():
    control = controller()
    control.accept(trajectory(point(0.0, (0, 0)), point(1.0, (1.0, 1.0))), NOW, REST)
    control.hold(np.array([0.7, 0.7]))
    assert sampled(control, 0.5).position == pytest.approx((0.7, 0.7))


def test_when_it_ends_exactly_now_expect_it_taken():
    control = controller()
    control.accept(
        trajectory(point(0.0, (0, 0)), point(1.0, (1.0, 1.0)), stamp_ns=NOW - S), NOW, REST
    )
    assert sampled(control, 0.0).position == pytest.approx((1.0, 1.0))


GOOD = (point(0.0, (0, 0), (0, 0)), point(1.0, (1, 1), (0, 0)))
NAN = float('nan')


@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        (trajectory(), 'no points'),
        (trajectory(*GOOD, stamp_ns=NOW - 2 * S), 'ended 1.000 s before'),
        (trajectory(GOOD[0], point(0.0, (1, 1), (0, 0))), 'point 1 is not later'),
        (trajectory(*GOOD, names=('shoulder', 'wrist')), 'unknown wrist; missing elbow'),
        (trajectory(point(1.0, (1,)), names=('shoulder',)), 'missing elbow'),
        (
            trajectory(point(1.0, (1, 1, 1)), names=('shoulder', 'elbow', 'elbow')),
            'named twice elbow',
        ),
        (trajectory(point(1.0, (1,))), 'point 0 has 1 positions, not 2'),
        (trajectory(point(1.0, ())), 'point 0 has no positions'),
        (trajectory(point(1.0, (1, 1), (0,))), 'point 0 has 1 velocities, not 2'),
        (trajectory(point(1.0, (1, NAN))), 'point 0 has positions that are not finite: elbow'),
        (trajectory(point(1.0, (1, 1), (float('inf'), 0))), 'velocities that are not finite'),
        (trajectory(GOOD[0], point(1.0, (1, 1), (0, 0.1))), 'not end at rest: elbow'),
        (trajectory(point(1.0, (1, 1), (), (0, 0))), 'accelerations but no velocities'),
        (trajectory(point(1.0, (1, 1), effort=(1, 1))), 'has effort'),
    ],
)
def test_when_a_trajectory_is_bad_expect_a_refusal_that_says_why_and_the_old_one_kept(bad, words):
    control = controller()
    control.accept(trajectory(*GOOD), NOW, REST)
    with pytest.raises(TrajectoryRefusedError, match=words):
        control.accept(bad, NOW, REST)
    assert sampled(control, 0.5).position == pytest.approx((0.5, 0.5))


def test_when_ends_in_motion_are_allowed_expect_it_taken_and_the_end_held():
    control = controller(allow_nonzero_velocity_at_trajectory_end=True)
    control.accept(trajectory(GOOD[0], point(1.0, (1, 1), (0, 0.1))), NOW, REST)
    assert sampled(control, 0.999).velocity[1] == pytest.approx(0.1, abs=0.02)
    assert sampled(control, 2.0).position == pytest.approx((1.0, 1.0))


@settings(max_examples=50, deadline=None)
@given(
    data=st.lists(st.tuples(st.floats(0.01, 0.5), number, number), min_size=2, max_size=12),
    late=st.floats(0.0, 0.99),
)
def test_when_joined_late_expect_the_same_path_as_from_the_start(data, late):
    times = np.cumsum([d[0] for d in data])
    points = [point(t, (p, -p), (v, 0.0)) for t, (_, p, v) in zip(times, data, strict=True)]
    points.append(point(times[-1] + 0.5, (0.0, 0.0), (0.0, 0.0)))
    moment = times[0] + late * (times[-1] + 0.5 - times[0])
    one, two = controller(), controller()
    one.accept(trajectory(*points, stamp_ns=NOW), NOW, REST)
    arrival = NOW + round(moment * S)
    two.accept(trajectory(*points, stamp_ns=NOW), arrival, REST)
    for ahead in (0, S // 100, S // 10):
        assert two.sample(arrival + ahead).position == pytest.approx(
            one.sample(arrival + ahead).position, abs=1e-12
        )
