# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays: by name, honouring step and encoding, refusing what does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sensor_msgs.msg import Image, JointState

from vla_deploy.ros.conversions import (
    ConversionError,
    JointMap,
    duration_msg,
    duration_s,
    image_to_rgb,
    rgb_to_image,
    time_msg,
    time_ns,
)

pixels = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: arrays(np.uint8, (*size, 3))
)


@given(pixels)
@settings(max_examples=30, deadline=None)
def test_when_rgb_goes_through_a_message_expect_the_same_pixels(rgb):
    assert np.array_equal(image_to_rgb(rgb_to_image(rgb, 1, 'front')), rgb)


def test_when_image_is_rgb8_expect_a_view_and_no_copy():
    msg = rgb_to_image(np.zeros((4, 5, 3), np.uint8), 1, 'front')
    view = image_to_rgb(msg)
    msg.data[0] = 7
    assert view[0, 0, 0] == 7


@given(pixels, st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_when_rows_are_padded_expect_step_to_be_honoured(rgb, padding):
    height, width, _ = rgb.shape
    rows = [row.tobytes() + b'\xee' * padding for row in rgb]
    step = width * 3 + padding
    msg = Image(height=height, width=width, encoding='rgb8', step=step, data=b''.join(rows))
    assert np.array_equal(image_to_rgb(msg), rgb)


@pytest.mark.parametrize(
    ('encoding', 'stored'),
    [
        ('rgb8', [1, 2, 3]),
        ('bgr8', [3, 2, 1]),
        ('rgba8', [1, 2, 3, 9]),
        ('bgra8', [3, 2, 1, 9]),
    ],
)
def test_when_channels_come_in_another_order_expect_rgb(encoding, stored):
    msg = Image(height=1, width=1, encoding=encoding, step=len(stored), data=bytes(stored))
    assert image_to_rgb(msg).tolist() == [[[1, 2, 3]]]


def test_when_image_is_grey_expect_three_equal_channels():
    msg = Image(height=1, width=2, encoding='mono8', step=2, data=bytes([4, 5]))
    assert image_to_rgb(msg).tolist() == [[[4, 4, 4], [5, 5, 5]]]


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'encoding': '16UC1'}, '16UC1'),
        ({'step': 5}, 'step'),
        ({'data': b''}, 'data has 0 bytes'),
        ({'data': bytes(11)}, 'data has 11 bytes'),
        ({'width': 0}, 'empty'),
    ],
)
def test_when_image_is_malformed_expect_an_error_that_names_the_field(change, named):
    good = {'height': 2, 'width': 2, 'encoding': 'rgb8', 'step': 6, 'data': bytes(12)}
    with pytest.raises(ConversionError, match=named):
        image_to_rgb(Image(**{**good, **change}))


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
