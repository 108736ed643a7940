# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Spans of a weights file: what they hold, and where it goes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip('torch')

from vla_deploy.backends import weights_file  # noqa: E402
from vla_deploy.backends.weights_file import (  # noqa: E402
    BYTES_PER_ELEMENT,
    Place,
    WeightsFile,
    most_columns,
    spans_of,
)

CPU, SPAN_BYTES, MOST_GAP_BYTES = torch.device('cpu'), 256, 64
COLUMNS = SPAN_BYTES // BYTES_PER_ELEMENT


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let spans be short."""
    monkeypatch.setattr(weights_file, 'SPAN_BYTES', SPAN_BYTES)
    monkeypatch.setattr(weights_file, 'MOST_GAP_BYTES', MOST_GAP_BYTES)


@st.composite
def parameters(draw):
    """Return what lies in a file, behind one another: rows, columns, and elements of a gap."""
    size = st.tuples(st.integers(1, 40), st.integers(1, COLUMNS), st.integers(0, 40))
    return draw(st.lists(size, min_size=1, max_size=12))


def placed(sizes, make=lambda rows, columns: torch.empty(rows, columns, device='meta')):
    """Return places of parameters, and the file's length in elements."""
    places, offset = [], 0
    for index, (rows, columns, gap) in enumerate(sizes):
        offset += gap
        target = make(rows, columns)
        places.append(Place(target, f'p{index}', offset * BYTES_PER_ELEMENT))
        offset += rows * columns
    return places, offset


@given(sizes=parameters(), order=st.randoms(use_true_random=False))
def test_when_parameters_lie_in_a_file_expect_each_row_in_one_span_in_the_files_order(sizes, order):
    places, _ = placed(sizes)
    twice = [place for place in places if order.random() < 0.2]  # are asked for
    places += twice
    order.shuffle(places)
    spans = spans_of(places)
    found = [own for span in spans for own in span.places]
    offsets = [own.offset for own in found]
    assert twice or offsets == sorted(offsets)
    for place in places:
        parts = [own for own in found if own.name == place.name]
        count = sum(own is place for own in places)
        rows = [len(own.target) for own in parts]
        assert sum(rows) == count * len(place.target)
        assert {own.offset for own in parts} >= {place.offset}
        assert max(own.end for own in parts) == place.end
    for span in spans:
        assert all(a.end <= b.offset for a, b in itertools.pairwise(span.places))


@given(sizes=parameters())
def test_when_parameters_lie_in_a_file_expect_spans_no_longer_and_no_more_than_need_be(sizes):
    places, _ = placed(sizes)
    spans = spans_of(places)
    for span in spans:
        assert span.places[-1].end - span.offset <= SPAN_BYTES
        for before, after in zip(span.places, span.places[1:], strict=False):
            assert after.offset - before.end <= MOST_GAP_BYTES
    for before, after in itertools.pairwise(spans):
        first = after.places[0]
        row_bytes = first.target.shape[1] * BYTES_PER_ELEMENT
        apart = first.offset - before.places[-1].end > MOST_GAP_BYTES
        assert apart or first.offset + row_bytes - before.offset > SPAN_BYTES


@given(sizes=parameters(), seed=st.integers(0, 99))
@torch.inference_mode()
def test_when_spans_are_copied_expect_rows_times_their_factors_where_they_go(
    tmp_path_factory, sizes, seed
):
    draw = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp('weights') / 'weights.bin'
    # every second one lies there as its transpose
    places, length = placed(sizes, lambda rows, columns: torch.empty(rows, columns))
    stored = draw.standard_normal(length).astype(np.float32)
    stored.tofile(path)
    expected, given_ = [], []
    for index, place in enumerate(places):
        rows, columns = place.target.shape
        first = place.offset // BYTES_PER_ELEMENT
        value = stored[first : first + rows * columns].reshape(rows, columns)
        transposed = index % 2 == 1
        target = torch.empty(columns, rows).T if transposed else place.target
        factor = None
        if index % 3:
            factor = draw.standard_normal((rows, 1) if transposed else columns).astype(np.float32)
            value = value * factor
        expected.append(value)
        given_.append(
            place._replace(target=target, factor=None if factor is None else torch.tensor(factor))
        )
    file = WeightsFile(path, CPU)
    file.begin(None)
    for span in spans_of(given_):
        file.copy(span)
    file.end()
    file.close()
    for place, value in zip(given_, expected, strict=True):
        np.testing.assert_array_equal(place.target.numpy(), value)


def test_when_a_row_is_as_long_as_a_span_expect_one_row_in_each():
    place = Place(torch.empty(3, most_columns(), device='meta'), 'long', 0)
    assert [len(span.places[0].target) for span in spans_of([place])] == [1, 1, 1]
