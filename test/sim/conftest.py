# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Scenes and robots for the tests of the simulation."""

from pathlib import Path

import pytest

from vla_deploy.sim.robot import RobotConfig, SimulatedRobot
from vla_deploy.sim.scene import CameraSize, Scene, SceneConfig

ROOT = Path(__file__).resolve().parents[2]
ARM = tuple(f'fr3_joint{i}' for i in range(1, 8))


@pytest.fixture(scope='session')
def urdf_path():
    return ROOT / 'urdf' / 'fr3.urdf'


@pytest.fixture(scope='session')
def urdf_text(urdf_path):
    return urdf_path.read_text()


@pytest.fixture
def scene(urdf_text):
    return Scene(urdf_text)


@pytest.fixture
def make_robot(urdf_text):
    def make(seed=0, now_ns=1_000_000_000, **config):
        small = SceneConfig(cameras={'front': CameraSize(32, 24)})
        return SimulatedRobot(
            urdf_text, RobotConfig(joints=ARM, scene=small, **config), seed, now_ns
        )

    return make
