# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Images of every encoding to RGB: honouring step and endianness, refusing what does not fit."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image

from vla_deploy.ros.conversions import ConversionError
from vla_deploy.ros.images import image_to_rgb, rgb_to_image

pixels = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: arrays(np.uint8, (*size, 3))
)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
BAYER = {'rggb': (0, 0), 'bggr': (1, 1), 'gbrg': (1, 0), 'grbg': (0, 1)}


def message(array, encoding, big_endian=False, padding=0):
    """Return a message of an array [height, width(, channels)], rows padded."""
    order = array.astype(array.dtype.newbyteorder('>' if big_endian else '<'))
    height, width = array.shape[:2]
    rows = [row.tobytes() + b'\xee' * padding for row in order]
    return Image(
        height=height, width=width, encoding=encoding, is_bigendian=int(big_endian),
        step=len(rows[0]), data=b''.join(rows),
    )  # fmt: skip


# -- 8 bits ---------------------------------------------------------------------------------------


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
    assert np.array_equal(image_to_rgb(message(rgb, 'rgb8', padding=padding)), rgb)


def test_when_the_last_row_comes_without_its_padding_expect_the_same_pixels():
    msg = message(COLOURS, 'rgb8', padding=5)
    msg.data = msg.data[:-5]
    assert np.array_equal(image_to_rgb(msg), COLOURS)


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


# -- 16 bits and depth ----------------------------------------------------------------------------


@pytest.mark.parametrize('big_endian', [False, True])
def test_when_grey_has_16_bits_expect_8_of_them_in_either_byte_order(big_endian):
    values = np.array([[0, 257, 65535, 128 * 257, 128]], np.uint16)
    rgb = image_to_rgb(message(values, 'mono16', big_endian, padding=2))
    assert rgb[0, :, 0].tolist() == [0, 1, 255, 128, 0]
    assert (rgb == rgb[..., :1]).all()


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'dtype', 'values'),
    [
        ('16UC1', np.uint16, [0, 1000, 2000, 9000]),
        ('32FC1', np.float32, [np.nan, 1.0, 2.0, 9.0]),
        ('32FC1', np.float32, [-1.0, 1.0, 2.0, 9.0]),
        ('32FC1', np.float32, [-np.inf, 1.0, 2.0, 9.0]),
    ],
)
def test_when_depth_is_shown_expect_grey_up_to_the_distance_and_black_where_not_measured(
    big_endian, encoding, dtype, values
):
    msg = message(np.array([values], dtype), encoding, big_endian)
    assert image_to_rgb(msg, depth_max_m=2.0)[0, :, 1].tolist() == [0, 128, 255, 255]
    assert image_to_rgb(msg, depth_max_m=4.0)[0, 1, 1] == 64


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
def test_when_no_distance_is_given_expect_depth_refused_naming_the_parameter(encoding):
    msg = message(np.zeros((2, 2), np.uint16 if encoding == '16UC1' else np.float32), encoding)
    with pytest.raises(ConversionError, match=f"{encoding}.*'depth_max_m'"):
        image_to_rgb(msg)


# -- bayer and yuv --------------------------------------------------------------------------------


def mosaic_of(rgb, pattern):
    """Return what a sensor with that pattern sees of an image [height, width]."""
    row, column = BAYER[pattern]
    height, width, _ = rgb.shape
    seen = np.empty((height, width), rgb.dtype)
    for y in range(height):
        for x in range(width):
            red_row, red_column = y % 2 == row, x % 2 == column
            channel = 1 if red_row != red_column else (0 if red_row else 2)
            seen[y, x] = rgb[y, x, channel]
    return seen


def neighbours(seen, pattern, y, x, channel):
    """Return the mean of the nearest pixels of a colour around one, rounded up at halves."""
    row, column = BAYER[pattern]
    near = []
    for v in range(y - 1, y + 2):
        for u in range(x - 1, x + 2):
            red_row, red_column = v % 2 == row, u % 2 == column
            colour = 1 if red_row != red_column else (0 if red_row else 2)
            if colour == channel:
                near.append((abs(v - y) + abs(u - x), int(seen[v, u])))
    nearest = [value for distance, value in near if distance == min(near)[0]]
    return (sum(nearest) + len(nearest) // 2) // len(nearest)


@pytest.mark.parametrize(('bits', 'big_endian'), [(8, False), (16, False), (16, True)])
@pytest.mark.parametrize('pattern', BAYER)
def test_when_image_is_bayer_expect_the_mean_of_the_nearest_pixels_of_each_colour(
    pattern, bits, big_endian
):
    dtype, high = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
    colours = np.random.default_rng(bits).integers(0, high + 1, (6, 8, 3)).astype(dtype)
    seen = mosaic_of(colours, pattern)
    rgb = image_to_rgb(message(seen, f'bayer_{pattern}{bits}', big_endian, padding=4))
    for y in range(1, 5):
        for x in range(1, 7):
            for channel in range(3):
                mean = neighbours(seen, pattern, y, x, channel)
                assert rgb[y, x, channel] == round(mean * 255 / high)
    assert np.array_equal(rgb[0], rgb[1])
    assert np.array_equal(rgb[:, -1], rgb[:, -2])


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('pattern', BAYER)
def test_when_bayer_has_16_bits_expect_the_colour_of_an_even_surface(pattern, big_endian):
    surface = np.tile(np.array([200, 100, 50], np.uint16) * 257, (4, 4, 1))
    msg = message(mosaic_of(surface, pattern), f'bayer_{pattern}16', big_endian)
    assert image_to_rgb(msg).reshape(-1, 3).tolist() == [[200, 100, 50]] * 16


def test_when_a_bayer_image_has_no_inner_pixel_expect_error():
    with pytest.raises(ConversionError, match='no inner pixel'):
        image_to_rgb(message(np.zeros((2, 4), np.uint8), 'bayer_rggb8'))


# encoding -> the byte of a pair's first luma
YUV = [('yuv422', 1), ('uyvy', 1), ('yuv422_yuy2', 0), ('yuyv', 0)]


@pytest.mark.parametrize(('encoding', 'luma'), YUV)
def test_when_two_pixels_share_their_colour_expect_what_the_formula_gives_by_hand(encoding, luma):
    y, u, v = (100, 180), 90, 160
    pair = np.empty((1, 2, 2), np.uint8)
    pair[0, :, luma], pair[0, :, 1 - luma] = y, (u, v)
    # BT.601: r = 1.164 (y - 16) + 1.596 (v - 128), b = 1.164 (y - 16) + 2.018 (u - 128),
    # g = 1.164 (y - 16) - 0.391 (u - 128) - 0.813 (v - 128)
    assert image_to_rgb(message(pair, encoding)).tolist() == [[[149, 87, 21], [242, 180, 114]]]


@pytest.mark.parametrize(('encoding', 'luma'), YUV)
def test_when_image_is_yuv_expect_the_colours_of_bt_601(encoding, luma):
    # black, white, and the primaries with full saturation, in limited range
    yuv = [(16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110)]
    pairs = np.empty((len(yuv), 4), np.uint8)
    for i, (y, u, v) in enumerate(yuv):
        pairs[i, luma::2] = y
        pairs[i, 1 - luma :: 2] = (u, v)
    rgb = image_to_rgb(message(pairs.reshape(len(yuv), 2, 2), encoding, padding=4)).astype(int)
    expected = [[0] * 3, [255] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert np.abs(rgb - np.array(expected)[:, np.newaxis]).max() <= 2


def test_when_a_yuv_row_is_odd_expect_error():
    with pytest.raises(ConversionError, match='pairs of pixels, but the width is 3'):
        image_to_rgb(message(np.zeros((2, 3, 2), np.uint8), 'yuv422'))


# -- malformed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'encoding': 'cmyk'}, "'cmyk' is none of rgb8"),
        ({'encoding': 'rgba8'}, 'step is 6 bytes, but 2 pixels of rgba8 take 8'),
        ({'encoding': 'mono16', 'step': 3}, 'step is 3'),
        ({'step': 5}, 'step'),
        ({'step': 7}, 'data has 12 bytes, but .* takes 14'),
        ({'data': b''}, 'data has 0 bytes'),
        ({'data': bytes(11)}, 'data has 11 bytes'),
        ({'data': bytes(13)}, 'data has 13 bytes'),
        ({'width': 0}, 'empty'),
        ({'height': 2**31}, 'data has 12 bytes'),
    ],
)
def test_when_image_is_malformed_expect_an_error_that_names_the_field(change, named):
    good = {'height': 2, 'width': 2, 'encoding': 'rgb8', 'step': 6, 'data': bytes(12)}
    with pytest.raises(ConversionError, match=named):
        image_to_rgb(Image(**{**good, **change}))


# -- compressed -----------------------------------------------------------------------------------


def compressed(array, name, mode=None, **options):
    stream = io.BytesIO()
    Pillow.fromarray(array, mode).save(stream, name, **options)
    return CompressedImage(format=name.lower(), data=stream.getvalue())


def test_when_image_is_a_png_expect_the_same_pixels():
    assert np.array_equal(image_to_rgb(compressed(COLOURS, 'PNG')), COLOURS)


def test_when_image_is_a_jpeg_expect_nearly_the_same_pixels():
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 1, 3))
    rgb = image_to_rgb(compressed(smooth, 'JPEG', quality=95))
    assert np.abs(rgb.astype(int) - smooth).max() <= 4


def test_when_a_png_is_grey_or_has_16_bits_or_transparency_expect_rgb():
    grey = COLOURS[..., 0]
    for array in (grey, grey.astype(np.uint16) * 257):
        rgb = image_to_rgb(compressed(array, 'PNG'))
        assert np.array_equal(rgb, np.repeat(grey[..., None], 3, axis=2))
    rgba = np.dstack([COLOURS, np.full((6, 8), 77, np.uint8)])
    assert np.array_equal(image_to_rgb(compressed(rgba, 'PNG')), COLOURS)


@pytest.mark.parametrize(
    ('data', 'named'),
    [
        (b'', 'data has 0 bytes'),
        (b'no image at all', 'neither JPEG nor PNG'),
        (bytes(compressed(COLOURS, 'PNG').data[:60]), 'does not decode'),
        (bytes(compressed(COLOURS, 'JPEG').data[:300]), 'does not decode'),
        (bytes(compressed(COLOURS, 'GIF').data), 'neither JPEG nor PNG'),
    ],
    ids=['empty', 'text', 'half a png', 'half a jpeg', 'gif'],
)
def test_when_compressed_data_is_no_image_expect_error(data, named):
    with pytest.raises(ConversionError, match=named):
        image_to_rgb(CompressedImage(format='png', data=data))


def test_when_a_png_claims_more_pixels_than_any_camera_has_expect_it_refused_unread():
    bomb = Pillow.new('1', (10_000, 10_000))
    stream = io.BytesIO()
    bomb.save(stream, 'PNG')
    with pytest.raises(ConversionError, match='are more than'):
        image_to_rgb(CompressedImage(format='png', data=stream.getvalue()))


# -- against ROS 2's own --------------------------------------------------------------------------


@pytest.mark.parametrize(
    'encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16',
                 'yuv422', 'yuv422_yuy2',
                 *(f'bayer_{pattern}{bits}' for pattern in BAYER for bits in (8, 16))],
)  # fmt: skip
def test_when_cv_bridge_is_installed_expect_the_same_rgb_from_it(encoding):
    reason = "ROS 2's cv_bridge, a C++ extension, is not installed"
    cv_bridge = pytest.importorskip('cv_bridge', reason=reason)
    shape = {'rgb8': (3,), 'bgr8': (3,), 'rgba8': (4,), 'bgra8': (4,)}.get(encoding, ())
    shape = (2,) if encoding in dict(YUV) else shape
    limit, dtype = (65536, np.uint16) if encoding.endswith('16') else (256, np.uint8)
    array = np.random.default_rng(1).integers(0, limit, (8, 10, *shape)).astype(dtype)
    msg = message(array, encoding, padding=4)
    theirs = cv_bridge.CvBridge().imgmsg_to_cv2(msg, 'rgb8')
    assert np.array_equal(image_to_rgb(msg), theirs)
