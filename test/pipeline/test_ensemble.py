# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What is left of a chunk on the grid of the next, and the mean of several."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.pipeline.ensemble import Ensemble, resampled

ROWS = np.array([[0.0], [1.0], [4.0], [9.0]])


@pytest.mark.parametrize(
    ('begin', 'expected'),
    [
        (0.0, [0, 1, 4, 9]),
        (2.0, [4, 9]),
        (1.5, [2.5, 6.5]),
        (-0.5, [0, 0.5, 2.5, 6.5]),
        (3.0, [9]),
        (3.1, []),
        (99.0, []),
    ],
)
def test_when_rows_are_resampled_expect_the_line_between_two_as_far_as_there_are_any(
    begin, expected
):
    assert resampled(ROWS, begin)[:, 0] == pytest.approx(expected)


@given(st.floats(-1.0, 5.0), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_when_rows_lie_on_a_line_expect_the_line(begin, count):
    rows = np.arange(count, dtype=np.float64)[:, np.newaxis]
    got = resampled(rows, begin)[:, 0]
    assert got == pytest.approx(np.maximum(begin + np.arange(len(got)), 0.0), abs=1e-8)


def reference(predictions, decay):
    """Return the mean of the predictions of one sample, the oldest first."""
    weights = np.exp(-decay * np.arange(len(predictions)))
    return float((weights * predictions).sum() / weights.sum())


@pytest.mark.parametrize('decay', [0.0, 0.01, 2.0])
def test_when_chunks_are_added_expect_the_weighted_mean_of_all_that_predicted_a_sample(decay):
    rng = np.random.default_rng(0)
    chunks = rng.normal(size=(5, 8, 2))  # each begins two samples after the one before
    ensemble = Ensemble(chunks[0])
    for chunk in chunks[1:]:
        ensemble = ensemble.add(chunk, 2.0, decay)
    for row in range(8):
        of_row = [chunks[k, row + 2 * (4 - k)] for k in range(5) if row + 2 * (4 - k) < 8]
        assert ensemble.count[row] == len(of_row)
        for dim in range(2):
            expected = reference(np.array(of_row)[:, dim], decay)
            assert ensemble.mean[row, dim] == pytest.approx(expected, abs=1e-12)


def test_when_nothing_is_left_expect_the_new_chunk_as_it_is():
    new = np.ones((4, 1))
    added = Ensemble(ROWS).add(new, 9.0, 0.01)
    assert np.array_equal(added.mean, new)
    assert added.count.tolist() == [1, 1, 1, 1]
