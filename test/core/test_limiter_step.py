# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""One step of one joint, held against the formulas that it is made by."""

import math

import pytest
from guard_world import fr3_limits
from hypothesis import given
from hypothesis import strategies as st

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.limiter import APPROACH, GAIN, JointStep

LOWER, UPPER, V_MAX, A_MAX, DT = -1.0, 1.0, 2.0, 10.0, 0.02
JOINT = JointStep(LOWER, UPPER, V_MAX, A_MAX, None, DT)
LINEAR = APPROACH * A_MAX / (GAIN / DT) ** 2
parts = st.floats(0.0, 1.0)
sides = st.sampled_from([-1.0, 1.0])


def step(q: float, v: float, target: float, drift: float, side: float = 1.0) -> tuple[float, bool]:
    """A step, mirrored if side is -1; the velocity is mirrored back."""
    after, brakes = JOINT.step(side * q, side * v, side * target, side * drift)
    return side * after, brakes


def room_bound(room: float, v: float) -> float:
    """The v' that solves v'^2 / (2a) + (v + v') dt / 2 = room."""
    b = 0.5 * A_MAX * DT
    return math.sqrt(b * b + 2.0 * A_MAX * (room - 0.5 * DT * v)) - b


@given(sides, st.floats(-0.75, 0.75))
def test_when_the_error_is_small_expect_two_fifths_of_it_closed_in_a_step(
    side: float, part: float
) -> None:
    drift, error = 0.3, part * LINEAR
    q = 0.1 - error - DT * drift  # where it would be that far behind after the step
    after, brakes = step(q, drift, 0.1, drift, side)
    assert not brakes
    assert after == pytest.approx(drift + 0.4 * error / DT, abs=1e-12)


@given(sides, parts)
def test_when_the_error_is_large_expect_the_speed_that_half_the_acceleration_takes_away(
    side: float, part: float
) -> None:
    error = LINEAR * (1.0 + 8.0 * part)
    wanted = math.sqrt(A_MAX * (error - 0.5 * LINEAR))
    drift = 0.2
    v = drift + wanted  # as fast as it is to be: the window of acceleration does not bind
    q = 0.1 - error - 0.5 * DT * (v + drift)
    after, brakes = step(q, v, 0.1, drift, side)
    assert not brakes
    assert after == pytest.approx(drift + wanted, abs=1e-9)


@given(sides, st.floats(0.0, 0.7), st.floats(1.0, 5.0))
def test_when_a_target_is_faster_than_allowed_expect_it_followed_as_at_the_limit(
    side: float, part: float, times: float
) -> None:
    q, ahead = -0.5, part * LINEAR  # where the joint would be that far ahead after the step
    after, brakes = step(q, V_MAX, q + DT * V_MAX - ahead, times * V_MAX, side)
    assert not brakes
    assert after == pytest.approx(V_MAX - 0.4 * ahead / DT, abs=1e-12)


def test_when_both_laws_of_approach_meet_expect_the_same_speed() -> None:
    assert pytest.approx(math.sqrt(A_MAX * 0.5 * LINEAR)) == GAIN / DT * LINEAR


@given(sides, parts, parts)
def test_when_a_target_rushes_at_the_bound_expect_all_the_room_and_no_more(
    side: float, how_far: float, how_fast: float
) -> None:
    room = 1e-3 + 0.6 * how_far
    v = how_fast * min(math.sqrt(2.0 * A_MAX * room), V_MAX) * (1.0 - 1e-9)
    after, brakes = step(UPPER - room, v, UPPER, V_MAX, side)
    if 0.5 * DT * v > room:
        assert brakes
        return
    assert not brakes
    bound = min(room_bound(room, v), V_MAX)
    assert after == pytest.approx(min(bound, v + A_MAX * DT), abs=1e-9)
    assert after * after / (2 * A_MAX) + 0.5 * DT * (v + after) <= room + 1e-12


@given(sides, parts, parts, st.booleans())
def test_when_a_target_at_rest_can_still_be_met_expect_it_never_overshot(
    side: float, how_far: float, how_fast: float, at_the_bound: bool
) -> None:
    way = 10.0 ** (-6.0 + 5.5 * how_far)
    target = UPPER if at_the_bound else 0.3
    q = target - way
    v = how_fast * min(math.sqrt(2.0 * A_MAX * way), V_MAX) * (1.0 - 1e-9)
    for _ in range(200):
        after, brakes = step(q, v, target, 0.0, side)
        if brakes:
            assert q + v * v / (2.0 * A_MAX) <= target + 1e-12  # it rests inside the step
            return
        q, v = q + 0.5 * DT * (v + after), after
        assert q <= target + 1e-12
    assert q == pytest.approx(target, abs=1e-6)


@pytest.mark.parametrize('side', [-1.0, 1.0])
def test_when_already_on_a_target_at_rest_expect_braking_at_once(side: float) -> None:
    assert step(0.2, 0.05, 0.2, 0.0, side) == (0.05, True)
    assert step(0.2, 0.0, 0.2, 0.0, side) == (0.0, False)


@pytest.mark.parametrize('side', [-1.0, 1.0])
def test_when_at_the_bound_expect_no_step_beyond_with_a_target_that_moves_on(side: float) -> None:
    assert step(UPPER, 0.0, UPPER, 0.5, side) == (0.0, False)


@pytest.mark.parametrize('side', [-1.0, 1.0])
def test_when_a_target_moves_off_the_bound_expect_it_followed_and_one_beyond_taken_as_at_rest(
    side: float,
) -> None:
    start = UPPER - 0.3
    off_the_bound = step(start, -0.2, UPPER, -0.4, side)[0]
    assert off_the_bound == pytest.approx(-0.2 + A_MAX * DT)
    near = UPPER - 0.001
    for target, drift in ((UPPER, -0.3), (UPPER + 0.5, 0.0)):
        error = UPPER - (near + 0.5 * DT * (-0.3 + drift))
        after = step(near, -0.3, target, -0.3, side)[0]
        assert after == pytest.approx(min(drift + 0.4 * error / DT, -0.3 + A_MAX * DT))


@pytest.mark.parametrize('side', [-1.0, 1.0])
def test_when_speed_is_too_great_for_the_room_expect_braking_at_once(side: float) -> None:
    assert step(UPPER - 0.001, 0.15, 0.0, -0.5, side) == (0.15, True)
    assert step(UPPER - 0.001, -0.15, 0.0, -0.5, side)[1] is False


@pytest.mark.parametrize('upper_end', [True, False])
def test_when_too_fast_for_the_speed_curve_expect_braking_at_once(upper_end: bool) -> None:
    bounds = Bounds.of(fr3_limits(), 0.0)
    assert bounds.envelope is not None
    curve = bounds.envelope.curves[0]
    assert curve is not None
    lower, upper = float(bounds.lower[0]), float(bounds.upper[0])
    joint = JointStep(lower, upper, 2.62, A_MAX, curve, DT)
    side = 1.0 if upper_end else -1.0
    braked = 0
    for room in (1e-4, 1e-3, 1e-2):
        q = upper - room if upper_end else lower + room
        for speed in (0.0, 0.01, 0.05, 0.1, 0.3):
            to_the_end = curve.q_upper - q if upper_end else q - curve.q_lower
            brakes = joint.step(q, side * speed, 0.0, -0.3 * side)[1]
            if speed > 0.0 and curve.step_bound(to_the_end, speed, 2.62, DT) < 0.0:
                braked += 1
                assert brakes
            elif 0.5 * DT * speed <= room:
                assert not brakes
    assert braked > 0
