# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The cheap proof that a plan is clean: never more lenient than the checks that it stands for."""

from typing import Any

import numpy as np
import pytest
from guard_world import HOME, START_NS, fr3_limits, smooth_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.chunk import Chunk, ControlMode
from vla_deploy.core.motion_check import check_motion
from vla_deploy.core.plan import PlanGrid, interpolant
from vla_deploy.core.screen import Screen
from vla_deploy.core.trajectory import segment_hull
from vla_deploy.core.violation import Action

LIMITS = fr3_limits()
BOUNDS = Bounds.of(LIMITS, 0.005)


def judged(data: np.ndarray, period_s: float, knot_scale: float = 0.8) -> tuple[bool, list[Any]]:
    """Whether the screen passes a plan, and what the full check finds."""
    grid = PlanGrid.of(period_s, *data.shape)
    knots = interpolant(START_NS, period_s, data)
    p, v = knots.position, knots.velocity
    slope = (p[1:] - p[:-1]) / grid.intervals
    hull = segment_hull(p[:-1], p[1:], v[:-1], v[1:], slope, grid.intervals)
    chunk = Chunk('a', 1, START_NS, START_NS, START_NS, period_s, ControlMode.POSITION,
                  LIMITS.names, data)
    found = check_motion(chunk, knots, slope, hull, BOUNDS, LIMITS, knot_scale, Action.CLAMPED)
    return Screen.of(BOUNDS, knot_scale, grid).passes(knots, slope, hull), found


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.sampled_from([0.01, 1 / 30, 0.05, 0.1]))
def test_when_the_screen_passes_expect_the_full_check_to_find_nothing(
    seed: int, steps: int, period_s: float
) -> None:
    rng = np.random.default_rng(seed)
    middle = rng.uniform(BOUNDS.lower, BOUNDS.upper)
    speed = rng.choice([0.05, 0.3, 1.0]) * rng.normal(0.0, LIMITS.velocity)
    turn = rng.choice([0.0, 0.3, 1.0]) * rng.normal(0.0, LIMITS.acceleration)
    t = (np.arange(steps)[:, None] - rng.uniform(0, steps)) * period_s
    data = middle + speed * t + 0.5 * turn * t * t + rng.choice([0.0, 1e-4]) * rng.normal(
        size=(steps, 7))
    passes, found = judged(data, period_s)
    assert not (passes and found)


@pytest.mark.parametrize('steps', [2, 3, 50])
@pytest.mark.parametrize('period_s', [0.01, 1 / 30, 0.1])
def test_when_a_plan_is_well_inside_expect_the_screen_to_be_enough(
    steps: int, period_s: float
) -> None:
    assert judged(smooth_plan(HOME, np.full(7, 0.005), steps, period_s), period_s) == (True, [])


@pytest.mark.parametrize(('joint', 'delta', 'rule'), [
    (0, 3.0, 'position'), (5, -1.1, 'position'), (4, 2.5, 'velocity'), (3, 0.5, 'acceleration'),
])
def test_when_a_plan_is_beyond_one_limit_expect_the_screen_to_leave_it_to_the_check(
    joint: int, delta: float, rule: str
) -> None:
    change = np.zeros(7)
    change[joint] = delta
    passes, found = judged(smooth_plan(HOME, change, 20, 0.03), 0.03)
    assert not passes
    assert rule in {violation.rule for violation in found}


def test_when_samples_overflow_or_are_not_finite_expect_no_pass() -> None:
    data = smooth_plan(HOME, np.full(7, 0.01), 20, 0.05)
    for value in (1e308, -1e308, np.nan, np.inf):
        bad = data.copy()
        bad[7, 2] = value
        with np.errstate(all='ignore'):
            assert not judged(bad, 0.05)[0]
