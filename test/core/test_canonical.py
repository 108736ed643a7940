# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON: one byte sequence for one value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_deploy.core.canonical import canonical_json, parse_canonical_json, without

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(values)
def test_when_written_and_read_expect_the_same_value_and_bytes(value: object) -> None:
    data = canonical_json(value)
    assert parse_canonical_json(data) == value
    assert canonical_json(parse_canonical_json(data)) == data


@pytest.mark.parametrize('data', [
    b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1}\n', b'"\\u0041"', b'1.50', b'{"a":1,"a":1}',
    b'NaN', b'', b'\xc3\xa9',
])
def test_when_bytes_are_not_canonical_expect_them_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  each of Python's own JSON errors is one
        parse_canonical_json(data)


def test_when_a_key_is_there_twice_expect_it_said() -> None:
    with pytest.raises(ValueError, match='has a key twice'):
        parse_canonical_json(b'{"a":1,"a":1}')


def test_when_a_number_is_none_of_json_expect_it_refused() -> None:
    with pytest.raises(ValueError, match='not JSON compliant'):
        canonical_json(float('nan'))


def test_when_a_key_is_taken_out_expect_a_copy() -> None:
    mapping = {'a': 1, 'b': 2}
    assert without(mapping, 'a') == {'b': 2}
    assert mapping == {'a': 1, 'b': 2}
