# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The figures that the gate is built on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.contract import Normalization
from vla_deploy.export.parity import Figure, GateError, action_scale, compare, compare_actions
from vla_deploy.pipeline.bundle import open_bundle


@given(
    index=st.integers(0, 59),
    error=st.floats(1e-6, 1.0),
    sign=st.sampled_from([-1, 1]),
)
@settings(max_examples=50, deadline=None)
def test_when_one_element_differs_expect_that_difference_whichever_it_is(index, error, sign):
    expected = np.linspace(-1, 1, 60).reshape(10, 6)
    actual = expected.copy()
    actual.flat[index] += sign * error
    figure = compare(actual, expected, 'chunk')
    assert figure.max_abs == pytest.approx(error, rel=1e-9)
    assert figure.cosine <= 1.0 + 1e-12


def test_when_equal_expect_zero_and_cosine_one():
    values = np.arange(6.0).reshape(2, 3)
    figure = compare(values, values, 'chunk')
    assert figure.max_abs == 0.0
    assert figure.cosine == pytest.approx(1.0, abs=1e-15)


def test_when_scaled_alike_but_turned_expect_cosine_to_fail():
    figure = compare(np.array([1e-5, 0.0]), np.array([0.0, 1e-5]), 'chunk')
    assert figure.max_abs < 1e-4
    assert not figure.passes(1e-4)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('both', [False, True])
def test_when_not_finite_expect_the_gate_to_fail(value, both):
    actual, expected = np.ones(3), np.ones(3)
    actual[1] = value
    if both:
        expected[1] = value
    with pytest.raises(GateError, match='chunk: holds NaN or infinity'):
        compare(actual, expected, 'chunk')


def test_when_shapes_differ_expect_the_gate_to_fail():
    with pytest.raises(GateError, match='shape'):
        compare(np.ones((1, 3)), np.ones(3), 'chunk')


def test_when_difference_equals_the_threshold_expect_failure():
    assert not Figure(1e-4, 1.0).passes(1e-4)
    assert Figure(np.nextafter(1e-4, 0), 1.0).passes(1e-4)


@pytest.mark.parametrize(
    ('mode', 'statistics', 'expected'),
    [
        ('mean_std', {'mean': [-10, 0.1], 'std': [2, 0.1]}, [18, 1]),
        ('min_max', {'min': [-5, 0], 'max': [3, 0.5]}, [5, 1]),
        ('quantiles', {'q01': [-5, 0], 'q99': [30, 0.5]}, [30, 1]),
        ('identity', {}, [1, 1]),
    ],
)
def test_when_actions_are_compared_expect_each_dimension_by_its_size(
    golden_bundle, mode, statistics, expected
):
    contract = open_bundle(golden_bundle('smolvla_3cam')).contract
    action = dataclasses.replace(
        contract.action, dim=2, normalization=Normalization(mode, 1e-8)
    )
    arrays = {f'action.{name}': np.array(v, np.float32) for name, v in statistics.items()}
    scale = action_scale(dataclasses.replace(contract, action=action), arrays)
    assert scale == pytest.approx(expected)
    figure = compare_actions(np.full((1, 2), 2.0), np.full((1, 2), 1.0), scale)
    assert figure.max_abs == pytest.approx(1 / min(expected))
