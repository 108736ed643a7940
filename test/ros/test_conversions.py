# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Times and joint states to numbers: by name, refusing what does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import JointState

from vla_deploy.ros.conversions import (
    ConversionError,
    JointMap,
    duration_msg,
    duration_s,
    time_msg,
    time_ns,
)


@given(st.permutations(['a', 'b', 'c', 'gripper']))
def test_when_joint_order_is_permuted_expect_values_by_name(names):
    value_of = {'a': 1.0, 'b': 2.0, 'c': 3.0, 'gripper': 4.0}
    msg = JointState(name=names, position=[value_of[name] for name in names])
    assert JointMap(('c', 'a', 'b')).positions(msg).tolist() == [3.0, 1.0, 2.0]


def test_when_order_changes_between_messages_expect_the_new_order():
    joint_map = JointMap(('a', 'b'))
    joint_map.positions(JointState(name=['a', 'b'], position=[1.0, 2.0]))
    again = joint_map.positions(JointState(name=['b', 'a'], position=[2.0, 1.0]))
    assert again.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ('names', 'position', 'named'),
    [
        (['a'], [1.0], 'missing joint: b'),
        (['a', 'b'], [1.0], '2 names, but 1 values'),
        (['a', 'b', 'a'], [1.0, 2.0, 3.0], 'named twice: a'),
    ],
)
def test_when_joint_state_is_malformed_expect_the_joint_named(names, position, named):
    with pytest.raises(ConversionError, match=named):
        JointMap(('a', 'b')).positions(JointState(name=names, position=position))


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_when_time_goes_through_a_message_expect_the_same_nanosecond(stamp_ns):
    assert time_ns(time_msg(stamp_ns)) == stamp_ns


@given(st.integers(-(10**12), 10**12))
def test_when_duration_goes_through_a_message_expect_the_same_nanosecond(nanoseconds):
    assert round(duration_s(duration_msg(nanoseconds * 1e-9)) * 1e9) == nanoseconds
