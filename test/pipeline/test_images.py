# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.contract import ImageRule
from vla_deploy.pipeline.images import Resizer, bilinear_taps, fitted_size

SIZES = st.integers(1, 96)


def rule(height, width, placement='pad_left_top', low=-1.0, high=1.0):
    return ImageRule(height, width, placement, low, high)


def resized(image, target):
    out = np.full((3, target.height, target.width), target.value_low, np.float32)
    Resizer(image.shape[0], image.shape[1], target)(image, out)
    return out


def torch_resized(image, target):
    """The same with torch's operators."""
    torch = pytest.importorskip('torch')
    pixels = torch.from_numpy(image.copy()).float().div(255).permute(2, 0, 1)[None]
    height, width = image.shape[:2]
    if (height, width) != (target.height, target.width):
        ratio = max(width / target.width, height / target.height)
        size = (int(height / ratio), int(width / ratio))
        pixels = torch.nn.functional.interpolate(
            pixels, size=size, mode='bilinear', align_corners=False
        )
        rest_h, rest_w = target.height - size[0], target.width - size[1]
        if target.placement == 'pad_left_top':
            padding = (rest_w, 0, rest_h, 0)
        else:
            padding = (rest_w // 2, rest_w - rest_w // 2, rest_h // 2, rest_h - rest_h // 2)
        pixels = torch.nn.functional.pad(pixels, padding)
    return (pixels[0] * (target.value_high - target.value_low) + target.value_low).numpy()


@settings(max_examples=80, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from(['pad_left_top', 'pad_center']), st.integers(0))
def test_when_any_size_is_resized_expect_what_torch_gives(h, w, target_h, target_w, place, seed):
    target = rule(target_h, target_w, place)
    if min(fitted_size(h, w, target)) < 1:
        return
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    assert np.abs(resized(image, target) - torch_resized(image, target)).max() <= 1e-6


@pytest.mark.parametrize(
    ('height', 'width', 'target'),
    [
        (480, 640, 512),
        (480, 640, 224),
        (720, 1280, 512),
        (480, 848, 512),
        (240, 424, 512),
        (512, 512, 512),
        (1080, 1920, 224),
        (600, 3840, 128),
    ],
)
def test_when_camera_size_is_usual_expect_what_torch_gives(height, width, target):
    image = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    target = rule(target, target)
    assert np.abs(resized(image, target) - torch_resized(image, target)).max() <= 1e-6


@given(st.integers(1, 4096), st.integers(1, 1024))
def test_when_taps_are_made_expect_pixels_inside_and_weights_that_add_up(size_in, size_out):
    taps = bilinear_taps(size_in, size_out)
    for index in (taps.first, taps.second):
        assert index.min() >= 0
        assert index.max() < size_in
    assert (taps.first_weight + taps.second_weight == 1.0).all()
    assert (taps.first_weight >= 0).all()
    assert (taps.second_weight >= 0).all()


def test_when_value_range_differs_expect_it_scaled_to():
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    target = rule(32, 32, low=0.0, high=1.0)
    assert np.abs(resized(image, target) - torch_resized(image, target)).max() <= 1e-6


VIEWS = {
    'bgr': lambda rgbd: rgbd[..., 2::-1],
    'rgba': lambda rgbd: rgbd[..., :3],
    'argb': lambda rgbd: rgbd[..., 1:],
    'abgr': lambda rgbd: rgbd[..., :0:-1],
    'rows apart': lambda rgbd: rgbd[..., :3].copy()[:, 5:],
    'rows from the bottom': lambda rgbd: rgbd[::-1, :, :3],
    'pixels apart': lambda rgbd: rgbd[:, ::2, :3],
    'columns from the right': lambda rgbd: rgbd[:, ::-1, :3],
    'one column': lambda rgbd: rgbd[:, 3:4, :3],
    'one row': lambda rgbd: rgbd[7:8, :, :3],
    'planes': lambda rgbd: rgbd.transpose(2, 0, 1).copy().transpose(1, 2, 0)[..., :3],
}


@pytest.mark.parametrize('view', VIEWS)
def test_when_image_is_a_view_expect_the_same_as_of_a_copy(view):
    pixels = np.random.default_rng(4).integers(0, 256, (48, 80, 4), dtype=np.uint8)
    image = VIEWS[view](pixels)
    target = rule(96, 96)
    assert np.array_equal(resized(image, target), resized(image.copy(), target))


@pytest.mark.parametrize('colours', ['[..., :3]', '[..., 2::-1]', '[..., 1:]', '[..., :0:-1]'])
def test_when_image_ends_with_its_memory_expect_nothing_read_behind_it(colours):
    code = f"""
import ctypes, mmap
import numpy as np
from vla_deploy.core.contract import ImageRule
from vla_deploy.pipeline.images import Resizer
room = 2 * mmap.PAGESIZE
memory = np.frombuffer(mmap.mmap(-1, room), np.uint8)
behind = ctypes.c_void_p(memory.ctypes.data + mmap.PAGESIZE)
assert ctypes.CDLL(None).mprotect(behind, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
image = memory[mmap.PAGESIZE - 20 * 30 * 4 : mmap.PAGESIZE].reshape(20, 30, 4){colours}
out = np.zeros((3, 32, 32), np.float32)
Resizer(20, 30, ImageRule(32, 32, 'pad_center', -1.0, 1.0))(image, out)
"""
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.parametrize('width', [59, 60, 61, 62, 63])
def test_when_image_is_written_expect_nothing_beside_it_touched(width):
    target = rule(64, 64, 'pad_center')
    out = np.full((3, 64, 64), 7.0, np.float32)
    image = np.random.default_rng(8).integers(0, 256, (64, width, 3), dtype=np.uint8)
    Resizer(64, width, target)(image, out)
    left = (64 - width) // 2
    inside = np.zeros(64, bool)
    inside[left : left + width] = True
    assert (out[:, :, ~inside] == 7.0).all()
    assert (np.abs(out[:, :, inside]) <= 1.0).all()


@pytest.mark.parametrize(
    'image', [np.zeros((20, 30, 3), np.float32), np.zeros((20, 31, 3), np.uint8)]
)
def test_when_image_is_not_of_the_size_or_type_expect_error_naming_both(image):
    with pytest.raises(ValueError, match=r'image is .*, not uint8 \(20, 30, 3\)'):
        Resizer(20, 30, rule(32, 32))(image, np.zeros((3, 32, 32), np.float32))


@pytest.mark.parametrize(
    'out',
    [
        np.zeros((3, 32, 32)),
        np.zeros((3, 32, 31), np.float32),
        np.zeros((3, 32, 64), np.float32)[:, :, ::2],
    ],
)
def test_when_out_cannot_take_the_image_expect_error_before_anything_is_written(out):
    with pytest.raises(ValueError, match=r'out is .*, not contiguous float32 \(3, 32, 32\)'):
        Resizer(20, 30, rule(32, 32))(np.full((20, 30, 3), 255, np.uint8), out)
    assert not out.any()


def test_when_padding_is_odd_and_centred_expect_odd_pixel_at_the_bottom():
    out = resized(np.full((20, 64, 3), 255, np.uint8), rule(33, 64, 'pad_center'))
    rows = np.flatnonzero((out[0] > 0.999).all(axis=1))
    assert (rows[0], 32 - rows[-1]) == (6, 7)


def test_when_padding_is_left_and_top_expect_image_at_the_bottom_right():
    out = resized(np.full((32, 20, 3), 255, np.uint8), rule(32, 32))
    assert (out[:, :, :12] == -1.0).all()
    assert np.abs(out[:, :, 12:] - 1.0).max() <= 1e-6


def test_when_image_would_vanish_expect_error_naming_its_size():
    with pytest.raises(ValueError, match='3840x1 pixels vanishes in 32x32'):
        Resizer(1, 3840, rule(32, 32))


@pytest.mark.parametrize('bands', [1, 2, 3, 7, 500])
def test_when_work_is_cut_into_bands_expect_no_more_than_rows_and_the_same_image(bands):
    image = np.random.default_rng(6).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    target = rule(512, 512)
    cut = Resizer(480, 640, target, bands)
    out = np.full((3, 512, 512), -1.0, np.float32)
    jobs = cut.jobs(image, out)
    assert len(jobs) == min(bands, 384)  # rows of the image without its padding
    for job in reversed(jobs):
        job()
    assert np.array_equal(out, resized(image, target))
