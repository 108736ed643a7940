# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""verify_chunk: every rule, the order of the checks, clamp and reject."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from guard_world import HOME, NAMES, START_NS, fr3_limits, smooth_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.chunk import Chunk, ControlMode
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.schedule import SessionBook
from vla_deploy.core.verify import VerifyReport, VerifyState, verify_chunk

LIMITS = fr3_limits()
CONFIG = GuardConfig()
SECOND = 10**9


def sessions() -> SessionBook:
    book = SessionBook()
    book.accept('old', 3)
    book.accept('a', 4)
    return book


def state(**changes: Any) -> VerifyState:
    base = VerifyState(START_NS, START_NS, sessions(), HOME, HOME, START_NS)
    return dataclasses.replace(base, **changes)


def chunk(data: Any = None, **changes: Any) -> Chunk:
    if data is None:
        data = smooth_plan(HOME, np.full(7, 0.2), 30, 0.05)
    base = Chunk('a', 5, START_NS, START_NS, START_NS + SECOND, 0.05, ControlMode.POSITION, NAMES,
                 np.asarray(data))
    return dataclasses.replace(base, **changes)


def judge(c: Chunk, s: VerifyState | None = None, **config: Any) -> VerifyReport:
    return verify_chunk(c, s or state(), LIMITS, dataclasses.replace(CONFIG, **config))[1]


def rules(report: VerifyReport) -> set[str]:
    return {v.rule for v in report.violations}


def ramp(speed: float, steps: int = 20, period_s: float = 0.05, joint: int = 4) -> np.ndarray:
    data = np.tile(HOME, (steps, 1))
    data[:, joint] += speed * period_s * np.arange(steps)
    return data


def test_when_a_plan_is_safe_expect_it_accepted_with_its_knots_untouched() -> None:
    c = chunk()
    report = judge(c)
    assert report.verdict == 'accepted'
    assert not report.violations
    assert report.plan is not None
    assert report.plan.knots.position.tobytes() == c.data.tobytes()
    assert np.diff(report.plan.knots.times).tolist() == [50_000_000] * 29


def with_value(value: float) -> np.ndarray:
    data = smooth_plan(HOME, np.full(7, 0.2), 30, 0.05)
    data[7, 2] = value
    return data


@pytest.mark.parametrize(('changes', 'rule'), [
    ({'schema_version': 2}, 'schema'),
    ({'seq': 4}, 'seq'),
    ({'session_id': 'old', 'seq': 99}, 'session'),
    ({'valid_until_ns': START_NS - 1}, 'ttl'),
    ({'joint_names': (*NAMES[:6], 'x')}, 'joint_names'),
    ({'joint_names': (*NAMES[:6], NAMES[0])}, 'joint_names'),
    ({'data': np.zeros((5, 6))}, 'dims'),
    ({'data': np.zeros(35)}, 'dims'),
    ({'data': np.zeros((1, 7))}, 'dims'),
    ({'data': np.zeros((0, 7))}, 'dims'),
    ({'data': np.zeros((2000, 7))}, 'dims'),
    ({'data': np.zeros((5, 7), np.float32)}, 'dims'),
    ({'joint_names': (*NAMES, NAMES[0]), 'data': np.zeros((5, 8))}, 'joint_names'),
    ({'period_s': 0.0}, 'period'),
    ({'period_s': -0.05}, 'period'),
    ({'period_s': math.nan}, 'period'),
    ({'period_s': math.inf}, 'period'),
    ({'stamp_ns': -5}, 'stamp'),
    ({'control_mode': ControlMode.VELOCITY}, 'control_mode'),
    ({'control_mode': 77}, 'control_mode'),
    ({'data': with_value(math.nan)}, 'finite'),
    ({'data': with_value(-math.inf)}, 'finite'),
    ({'observation_stamp_ns': START_NS - 2 * SECOND}, 'observation_age'),
    ({'observation_stamp_ns': START_NS + SECOND}, 'observation_age'),
    ({'stamp_ns': START_NS + 2 * SECOND, 'valid_until_ns': START_NS + 3 * SECOND}, 'ahead'),
    ({'stamp_ns': START_NS - 5 * SECOND}, 'ttl'),
])
@pytest.mark.parametrize('mode', ['clamp', 'reject'])
def test_when_a_structural_rule_is_broken_expect_refusal_that_names_it(
    changes: dict[str, Any], rule: str, mode: str
) -> None:
    result, report = verify_chunk(chunk(**changes), state(), LIMITS, GuardConfig(mode=mode))
    assert result is None
    assert report.verdict == 'refused'
    assert rules(report) == {rule}
    assert report.violations[0].message
    assert report.violations[0].session_id == chunk(**changes).session_id


def test_when_a_value_is_nan_expect_joint_and_sample() -> None:
    violation = judge(chunk(with_value(math.nan))).violations[0]
    assert (violation.joint, violation.sample) == (NAMES[2], 7)


def test_when_a_joint_is_missing_expect_its_name() -> None:
    report = judge(chunk(joint_names=(*NAMES[:6], 'gripper')))
    assert report.violations[0].joint == NAMES[6]


@pytest.mark.parametrize('what', ['commanded_position', 'measured_position'])
def test_when_the_start_is_far_from_either_position_expect_refusal(what: str) -> None:
    moved = HOME + np.array([0, 0, 0.3, 0, 0, 0, 0])
    report = judge(chunk(), state(**{what: moved}))
    assert rules(report) == {'start_jump'}
    assert what.split('_')[0] in report.violations[0].message
    assert report.violations[0].joint == NAMES[2]
    assert judge(chunk(), state(**{what: moved}), start_jump=0.4).verdict == 'accepted'


def test_when_the_plan_began_in_the_past_expect_the_jump_judged_where_it_is_now() -> None:
    data = smooth_plan(HOME, np.full(7, 0.6), 30, 0.05)
    late = START_NS - 700_000_000
    report = judge(chunk(data, stamp_ns=late, observation_stamp_ns=late), start_jump=0.2)
    assert rules(report) == {'start_jump'}


@pytest.mark.parametrize('changes', [
    {'measured_position': None}, {'measured_ns': START_NS - SECOND},
])
def test_when_the_joint_state_is_old_or_missing_expect_refusal(changes: dict[str, Any]) -> None:
    assert rules(judge(chunk(), state(**changes))) == {'joint_state_age'}


@pytest.mark.parametrize(('data', 'rule', 'joint', 'unit'), [
    (smooth_plan(HOME, np.array([0, 0, 0, 2.3, 0, 0, 0.0]), 100, 0.05), 'position', 3, 'rad'),
    (smooth_plan(HOME, np.array([0, -1.1, 0, 0, 0, 0, 0.0]), 100, 0.05), 'position', 1, 'rad'),
    (ramp(5.2), 'velocity', 4, 'rad/s'),
    (ramp(1.0) + 0.02 * (np.arange(20)[:, None] % 2), 'acceleration', 4, 'rad/s^2'),
])
def test_when_motion_exceeds_a_limit_expect_clamp_or_refusal_by_mode(
    data: np.ndarray, rule: str, joint: int, unit: str
) -> None:
    clamped = judge(chunk(data))
    refused = judge(chunk(data), mode='reject')
    assert (clamped.verdict, refused.verdict) == ('clamped', 'refused')
    found = [v for v in clamped.violations if v.rule == rule and v.joint == NAMES[joint]]
    assert len(found) == 1
    assert found[0].unit == unit
    assert found[0].sample >= 0
    assert found[0].value != pytest.approx(found[0].limit, rel=1e-12)
    assert refused.plan is None


def test_when_a_plan_rushes_at_a_bound_expect_viability_violated() -> None:
    data = np.tile(HOME, (12, 1))
    data[:, 0] = 2.0 + 2.0 * 0.03 * np.arange(12)
    at_start = state(commanded_position=data[0], measured_position=data[0])
    assert 'viability' in rules(judge(chunk(data, period_s=0.03), at_start))


def test_when_speed_lies_between_knot_scale_and_the_limit_expect_knot_scale_to_decide() -> None:
    data = ramp(5.26 * 0.9, steps=8) - np.array([0, 0, 0, 0, 2.0, 0, 0])
    at_start = state(commanded_position=data[0], measured_position=data[0])
    assert 'velocity' in rules(judge(chunk(data), at_start))
    assert judge(chunk(data), at_start, knot_scale=0.95).verdict == 'accepted'


def test_when_a_plan_ends_in_the_soft_margin_expect_the_margin_to_decide() -> None:
    top = 2.7437 - 0.003
    data = np.tile(HOME, (40, 1))
    data[:, 0] = smooth_plan(np.array([top - 0.2]), np.array([0.2]), 40, 0.05)[:, 0]
    at_start = state(commanded_position=data[0], measured_position=data[0])
    assert 'position' in rules(judge(chunk(data), at_start))
    assert judge(chunk(data), at_start, soft_margin=0.001).verdict == 'accepted'


@pytest.mark.parametrize(('changes', 'config', 'rule'), [
    ({'data': np.tile(HOME, (40, 1))}, {'max_chunk_steps': 20}, 'dims'),
    ({'observation_stamp_ns': START_NS - SECOND // 2}, {'max_observation_age_s': 0.3},
     'observation_age'),
    ({'observation_stamp_ns': START_NS + 20_000_000}, {'clock_tolerance_s': 0.01},
     'observation_age'),
    ({'stamp_ns': START_NS + SECOND // 2}, {'max_chunk_ahead_s': 0.4}, 'ahead'),
])
def test_when_a_bound_is_configured_tighter_expect_it_to_refuse(
    changes: dict[str, Any], config: dict[str, Any], rule: str
) -> None:
    assert judge(chunk(**changes)).verdict == 'accepted'
    assert rules(judge(chunk(**changes), **config)) == {rule}


def test_when_the_joint_state_timeout_is_shorter_expect_refusal() -> None:
    aged = state(measured_ns=START_NS - 150_000_000)
    assert judge(chunk(), aged).verdict == 'accepted'
    assert rules(judge(chunk(), aged, joint_state_timeout_s=0.1)) == {'joint_state_age'}


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(7)))
def test_when_joints_are_permuted_expect_the_same_plan(order: list[int]) -> None:
    data = smooth_plan(HOME, np.linspace(-0.2, 0.2, 7), 20, 0.05)
    names = tuple(NAMES[i] for i in order)
    wide = np.hstack((data[:, order], np.full((20, 1), np.nan)))
    report = judge(chunk(wide, joint_names=(*names, 'camera_pan')))
    assert report.verdict == 'accepted'
    assert report.plan is not None
    assert (report.plan.knots.position == data).all()


def minimum_jerk_at_nine_tenths(seed: int, period: float) -> np.ndarray:
    """Samples of a motion that uses 0.9 of knot_scale x limit, or of the speed of a position."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(LIMITS.lower + 0.3, LIMITS.upper - 0.3)
    end = rng.uniform(LIMITS.lower + 0.3, LIMITS.upper - 0.3)
    way = np.abs(end - start)
    part = 0.9 * CONFIG.knot_scale
    duration = max((1.875 * way / (part * LIMITS.velocity)).max(),
                   np.sqrt(5.7735 * way / (part * LIMITS.acceleration)).max())
    envelope = Bounds.of(LIMITS, 0.0).envelope
    assert envelope is not None
    s = np.linspace(0.0, 1.0, 200)[:, None]
    speed = 30 * s**2 * (1 - s) ** 2 * way / duration
    q = start + (10 * s**3 - 15 * s**4 + 6 * s**5) * (end - start)
    allowed = np.where(end > start, envelope.upward(q), envelope.downward(q))
    duration *= max(1.0, (speed / allowed).max() / 0.9)
    steps = max(3, math.ceil(duration / period) + 1)
    # Of few samples, what is executed between them turns harder than the motion they were taken of.
    while (peak_acceleration(data := smooth_plan(start, end - start, steps, period), period)
           > LIMITS.acceleration * (1.0 - 1e-5)).any():
        steps += 1
    return data


def peak_acceleration(data: np.ndarray, period: float) -> np.ndarray:
    """Largest acceleration [joints] of the cubics through samples and their mean velocities."""
    v, step = np.gradient(data, period, axis=0), np.diff(data, axis=0) / period
    ends = (6 * step - 4 * v[:-1] - 2 * v[1:], 2 * v[:-1] + 4 * v[1:] - 6 * step)
    return np.abs(np.stack(ends) / period).max(axis=(0, 1))


@pytest.mark.parametrize('period', [0.1, 1 / 30, 0.02])
def test_when_1000_minimum_jerk_motions_use_nine_tenths_expect_no_violation(period: float) -> None:
    for seed in range(1000):
        data = minimum_jerk_at_nine_tenths(seed, period)
        at_start = state(commanded_position=data[0], measured_position=data[0])
        report = judge(chunk(data, period_s=period), at_start)
        assert report.violations == (), seed


def test_when_a_plan_is_clamped_expect_its_target_inside_the_bounds() -> None:
    data = np.tile(HOME, (10, 1))
    data[5:] = 1e308
    report = judge(chunk(data))
    assert report.verdict == 'clamped'
    assert report.plan is not None
    assert (report.plan.knots.position <= LIMITS.upper).all()
    assert np.isfinite(report.plan.knots.velocity).all()
