# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What is recorded for training."""

import numpy as np
from reach_data import STATES_PER_SCENE, Dataset, Recording, draw_states, record, shrink_exactly

from vla_deploy.core.contract import ImageRule
from vla_deploy.pipeline.images import Resizer
from vla_deploy.sim import reach


def test_when_scenes_are_recorded_twice_expect_the_same_arrays(urdf_text, few_demonstrations):
    again = record(Recording(urdf_text, 0, 2, held_out=False, vary=True), workers=1)
    rows = slice(0, 2 * STATES_PER_SCENE)
    for name, array in vars(again).items():
        assert (array == getattr(few_demonstrations, name)[rows]).all(), name


def test_when_training_scenes_are_recorded_expect_no_cube_in_a_held_out_cell(few_demonstrations):
    centres = few_demonstrations.centre.astype(np.float64).reshape(-1, 2)
    assert not any(reach.in_held_out_cell(x, y) for x, y in centres)


def test_when_a_cube_is_in_view_expect_its_colour_where_it_is_projected(urdf_text):
    plain = record(Recording(urdf_text, 50, 12, held_out=False, vary=False), workers=1)
    seen = []
    for image, pixel in zip(plain.images, plain.pixel, strict=True):
        for channel, (column, row) in enumerate(pixel):
            value = image[int(row * 128), int(column * 128)].astype(int)
            seen.append(value[channel] > 1.5 * np.delete(value, channel).max())
    assert np.mean(seen) > 0.8  # the arm hides some


def test_when_light_is_varied_expect_other_images_and_the_same_labels(urdf_text):
    plain = record(Recording(urdf_text, 0, 2, held_out=False, vary=False), workers=1)
    varied = record(Recording(urdf_text, 0, 2, held_out=False, vary=True), workers=1)
    assert np.abs(plain.images.astype(int) - varied.images.astype(int)).mean() > 1.0
    assert (plain.goal == varied.goal).all()
    assert (plain.centre == varied.centre).all()


def test_when_an_image_is_shrunk_expect_what_the_served_pipeline_computes():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    rule = ImageRule(128, 128, 'pad_left_top', -1.0, 1.0)
    served = np.empty((3, 128, 128), np.float32)
    Resizer(256, 256, rule)(image, served)
    ours = (shrink_exactly(image) / 127.5 - 1).transpose(2, 0, 1)
    assert np.abs(ours - served).max() < 1e-6


def test_when_states_are_drawn_expect_starts_ways_and_goals():
    rng = np.random.default_rng(0)
    home, goal = np.zeros(7), np.ones((3, 7))
    states = np.concatenate([draw_states(rng, home, goal) for _ in range(300)])
    progress = states.mean(axis=1)
    assert 0.08 < np.mean(np.abs(progress) < 0.04) < 0.3
    assert 0.2 < np.mean(np.abs(progress - 1) < 0.1) < 0.8
    assert np.mean((progress > 0.2) & (progress < 0.8)) > 0.1


def test_when_a_dataset_is_saved_expect_the_same_back(tmp_path, few_demonstrations):
    few_demonstrations.save(tmp_path / 'data.npz')
    back = Dataset.load(tmp_path / 'data.npz')
    for name, array in vars(few_demonstrations).items():
        assert (array == getattr(back, name)).all(), name
