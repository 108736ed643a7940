# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Guidance of a new chunk by what is left of the previous one."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.contract import TimeEmbedding
from vla_deploy.pipeline import Guidance, Observation, Policy
from vla_deploy.pipeline.guidance import SCHEDULES, guidance_weight, prefix_weights
from vla_deploy.pipeline.sampler import EulerSampler

STEPS, DIMS = 8, 3
PREVIOUS = np.full((5, 2), 0.25, np.float32)
GUIDANCE = Guidance(PREVIOUS, 2, 5, 'linear', 10.0)
NOISE = np.linspace(-1, 1, STEPS * DIMS, dtype=np.float32).reshape(STEPS, DIMS)


def still(x, embedding, dt):
    """Take a step of a policy whose velocity is 0 everywhere."""
    return x, np.zeros_like(x)


def sample(guidance, steps=10):
    return EulerSampler(TimeEmbedding(16, 0.004, 4.0), steps)(still, NOISE, guidance)[0]


@pytest.mark.parametrize(
    ('schedule', 'expected'),
    [
        ('zeros', [1, 1, 0, 0, 0, 0, 0, 0]),
        ('ones', [1, 1, 1, 1, 1, 0, 0, 0]),
        ('linear', [1, 1, 0.75, 0.5, 0.25, 0, 0, 0]),
        ('exp', [1, 1, *(w * np.expm1(w) / (np.e - 1) for w in (0.75, 0.5, 0.25)), 0, 0, 0]),
    ],
)
def test_when_schedule_is_given_expect_its_weights(schedule, expected):
    weights = prefix_weights(2, 5, STEPS, schedule)
    assert weights.dtype == np.float32
    assert weights == pytest.approx(expected, abs=1e-7)


@given(
    st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.sampled_from(SCHEDULES)
)
@settings(max_examples=100, deadline=None)
def test_when_delay_and_horizon_vary_expect_weights_that_never_rise(delay, horizon, steps, name):
    weights = prefix_weights(delay, horizon, steps, name)
    assert weights.shape == (steps,)
    assert (np.diff(weights) <= 0).all()
    assert (weights[: min(delay, horizon)] == 1).all()
    assert (weights[horizon:] == 0).all()


def test_when_time_begins_expect_the_bound_and_later_the_formula():
    bound = np.float32(5.0)
    assert guidance_weight(np.float32(1.0), bound) == bound
    assert guidance_weight(np.float32(0.5), bound) == pytest.approx(2.0)
    assert guidance_weight(np.float32(0.9), bound) == bound


def test_when_guided_expect_only_samples_before_the_horizon_to_move():
    free, guided = sample(None), sample(GUIDANCE)
    assert (free == NOISE).all()
    assert np.abs(guided[:2, :2] - 0.25).max() < np.abs(free[:2, :2] - 0.25).max() / 2
    assert np.abs(guided[:2, 2]).max() < np.abs(free[:2, 2]).max() / 2  # padded dims: toward 0
    assert (guided[5:] == free[5:]).all()


@pytest.mark.parametrize(
    'change',
    [
        {'previous': PREVIOUS + np.float32(1)},
        {'delay_steps': 4},
        {'horizon_steps': 3},
        {'schedule': 'ones'},
        {'max_weight': 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_when_a_field_changes_expect_another_chunk(change):
    other = dataclasses.replace(GUIDANCE, **change)
    assert (sample(other) != sample(GUIDANCE)).any()


def test_when_horizon_is_beyond_what_is_left_expect_it_clipped():
    assert (sample(dataclasses.replace(GUIDANCE, horizon_steps=99)) == sample(GUIDANCE)).all()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'previous': PREVIOUS.astype(np.float64)}, 'previous must be float32'),
        ({'previous': PREVIOUS[0]}, r'previous must be float32 \[rows, dims\]'),
        ({'previous': PREVIOUS[:0]}, 'previous must be float32'),
        ({'previous': PREVIOUS * np.nan}, 'not finite'),
        ({'delay_steps': -1}, 'delay_steps is -1'),
        ({'horizon_steps': -1}, 'horizon_steps is -1'),
        ({'schedule': 'cubic'}, "schedule is 'cubic', not one of linear, exp, ones, zeros"),
        ({'max_weight': float('nan')}, 'max_weight is nan'),
        ({'max_weight': -1.0}, 'max_weight is -1.0'),
    ],
)
def test_when_guidance_cannot_be_right_expect_the_field_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GUIDANCE, **change)


@pytest.mark.parametrize('shape', [(STEPS + 1, DIMS), (STEPS, DIMS + 1)])
def test_when_more_is_left_than_a_chunk_holds_expect_an_error(shape):
    with pytest.raises(ValueError, match='more than the chunk'):
        sample(Guidance(np.zeros(shape, np.float32), 0, 4, 'ones', 1.0))


def test_when_policy_infers_with_guidance_expect_it_applied(plain_bundle):
    policy = Policy.load(plain_bundle(), backend='stub', stub_value=1.0)
    image = np.zeros((48, 64, 3), np.uint8)
    observation = Observation({'front': image}, np.zeros(7), 'reach')
    noise = np.zeros((6, 8), np.float32)
    guidance = Guidance(np.zeros((3, 7), np.float32), 1, 3, 'ones', 5.0)
    free = policy.infer(observation, noise=noise).raw
    guided = policy.infer(observation, noise=noise, guidance=guidance).raw
    assert (guided[:3] < free[:3]).all()
    assert guided[3:] == pytest.approx(free[3:], abs=1e-6)
