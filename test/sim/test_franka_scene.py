# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The FR3's images are those that its policy was trained on, whatever else a scene can be."""

from pathlib import Path

import numpy as np
import pytest

from vla_deploy.sim.reach import place_scene
from vla_deploy.sim.render import Renderer
from vla_deploy.sim.robot import arrange

ARM = tuple(f'fr3_joint{i}' for i in range(1, 8))
LOW = (0.2, 0.3, -0.1, -2.0, 0.1, 2.2, 0.8)  # the hand is in sight of the front camera
RECORDED = np.load(Path(__file__).with_name('franka_images.npz'))
# Another version of the renderer may decide otherwise on which side of an edge a pixel lies.
EDGE_PIXELS = 0.001


def rendered(scene):
    images = {}
    with Renderer(scene) as renderer:
        for seed in (0, 7):
            arrange(scene, ARM, place_scene(seed))
            if seed == 7:
                scene.set_joints(dict(zip(ARM, LOW, strict=True)))
            for camera in ('front', 'wrist'):
                images[f'{camera}_{seed}'] = renderer.render(scene.snapshot(), camera)
    return images


@pytest.fixture
def images(scene):
    return rendered(scene)


def test_when_the_franka_is_drawn_expect_the_images_recorded_before(images):
    assert set(images) == set(RECORDED.files)
    for name, image in images.items():
        assert image.shape == RECORDED[name].shape
        difference = np.abs(image.astype(int) - RECORDED[name].astype(int)).max(axis=2)
        assert (difference > 2).mean() <= EDGE_PIXELS, name
