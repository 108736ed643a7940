# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Camera images: content, size, determinism, and what is said when there is no renderer."""

import os
import subprocess
import sys

import numpy as np
import pytest

from vla_deploy.sim.render import Renderer
from vla_deploy.sim.scene import CameraSize, Scene, SceneConfig

READY = {
    'fr3_joint2': -np.pi / 4, 'fr3_joint4': -3 * np.pi / 4,
    'fr3_joint6': np.pi / 2, 'fr3_joint7': np.pi / 4,
}  # fmt: skip
CUBES = {'red': (0.45, -0.18), 'green': (0.55, 0.02), 'blue': (0.42, 0.2)}
CHANNEL = {'red': 0, 'green': 1, 'blue': 2}


@pytest.fixture(scope='module')
def ready(urdf_text):
    scene = Scene(urdf_text)
    scene.set_joints(READY)
    scene.place_cubes(CUBES)
    return scene


@pytest.fixture(scope='module')
def renderer(ready):
    with Renderer(ready) as renderer:
        yield renderer


def pixel(scene, camera, position):
    """Project a point into an image by the pinhole model: column, row."""
    view = scene.data.camera(camera)
    size = scene.config.cameras[camera]
    x, y, z = view.xmat.reshape(3, 3).T @ (np.asarray(position) - view.xpos)
    focal = size.height / 2 / np.tan(np.deg2rad(scene.model.camera(camera).fovy[0]) / 2)
    return size.width / 2 - focal * x / z, size.height / 2 + focal * y / z


def dominant(image, colour):
    """Return which pixels have much more of one colour than of the two others."""
    others = [c for c in range(3) if c != CHANNEL[colour]]
    return image[..., CHANNEL[colour]].astype(int) - image[..., others].max(axis=-1) > 60


@pytest.mark.parametrize('camera', ['front', 'wrist'])
@pytest.mark.parametrize('colour', list(CUBES))
def test_when_a_camera_looks_expect_each_cube_in_its_colour_where_it_lies(
    ready, renderer, camera, colour
):
    seen = dominant(renderer.render(ready.snapshot(), camera), colour)
    assert seen.sum() > 30
    centre = np.argwhere(seen).mean(axis=0)[::-1] + 0.5
    top = (*CUBES[colour], 0.03)
    assert centre == pytest.approx(pixel(ready, camera, top), abs=6.0)


@pytest.mark.parametrize('camera', ['front', 'wrist'])
def test_when_an_image_is_drawn_expect_bright_varied_rgb8(ready, renderer, camera):
    image = renderer.render(ready.snapshot(), camera)
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.mean() > 60.0
    assert image.std() > 10.0


def test_when_a_cube_moves_expect_the_image_to_follow_the_snapshot(ready, renderer):
    before = renderer.render(ready.snapshot(), 'front')
    old = ready.snapshot()
    ready.place_cubes({'red': (0.6, -0.1)})
    moved = renderer.render(ready.snapshot(), 'front')
    ready.place_cubes(CUBES)
    assert (dominant(before, 'red') != dominant(moved, 'red')).sum() > 50
    assert np.array_equal(renderer.render(old, 'front'), before)


def test_when_the_arm_moves_expect_the_wrist_camera_to_move_with_it(ready, renderer):
    before = renderer.render(ready.snapshot(), 'wrist')
    ready.set_joints({**READY, 'fr3_joint1': 0.3})
    after = renderer.render(ready.snapshot(), 'wrist')
    ready.set_joints(READY)
    assert (np.abs(before.astype(int) - after) > 20).mean() > 0.01


def test_when_rendering_expect_the_simulated_state_untouched(ready, renderer):
    before = ready.positions, ready.time_s, ready.tool_position()
    renderer.render(ready.snapshot(), 'front')
    after = ready.positions, ready.time_s, ready.tool_position()
    for one, two in zip(before, after, strict=True):
        assert np.array_equal(one, two)


def test_when_cameras_have_other_sizes_expect_images_of_those_sizes(urdf_text):
    sizes = {'front': CameraSize(width=64, height=48), 'wrist': CameraSize(width=40, height=80)}
    scene = Scene(urdf_text, SceneConfig(cameras=sizes))
    with Renderer(scene) as renderer:
        for camera, size in sizes.items():
            image = renderer.render(scene.snapshot(), camera)
            assert image.shape == (size.height, size.width, 3)
            assert image.mean() > 40.0


def test_when_an_unknown_camera_is_asked_for_expect_the_known_ones(ready, renderer):
    with pytest.raises(KeyError, match='front, wrist'):
        renderer.render(ready.snapshot(), 'rear')


@pytest.mark.parametrize(
    ('backend', 'words'),
    [('disable', 'MUJOCO_GL=disable; install its libraries'), ('glide', 'MUJOCO_GL=glide')],
)
def test_when_there_is_no_renderer_expect_one_line_that_says_what_to_do(
    urdf_path, backend, words
):
    program = (
        'import sys\n'
        'from vla_deploy.sim.mujoco_loader import SimulatorMissingError\n'
        'from vla_deploy.sim.render import Renderer, RenderError\n'
        'from vla_deploy.sim.scene import Scene\n'
        'try:\n'
        f'    Renderer(Scene(open({str(urdf_path)!r}).read()))\n'
        'except (RenderError, SimulatorMissingError) as error:\n'
        '    print(error)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program],
        env={**os.environ, 'MUJOCO_GL': backend, 'PYTHONPATH': os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert words in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1
