# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters reach the robot they describe."""

import dataclasses

import numpy as np
import pytest

from vla_deploy.core.parameter import ParameterError, config_from_mapping, parameters_of
from vla_deploy.files import read_yaml
from vla_deploy.sim.config import SimRobotConfig
from vla_deploy.sim.controller import ControllerConfig
from vla_deploy.sim.robot import Layout, RobotConfig
from vla_deploy.sim.scene_config import CameraMount, CameraSize, SceneConfig


def test_when_nothing_is_set_expect_the_defaults_of_the_field():
    robot = SimRobotConfig().robot()
    assert robot == RobotConfig(joints=tuple(f'fr3_joint{i}' for i in range(1, 8)))
    assert robot.controller == ControllerConfig(False, False)


@pytest.mark.parametrize(
    ('values', 'changed'),
    [
        ({'joints': ['a', 'b']}, {'joints': ('a', 'b')}),
        ({'command': 'velocity'}, {'command': 'velocity'}),
        ({'velocity_timeout_s': 0.2}, {'velocity_timeout_s': 0.2}),
        ({'joint_state_order': ['b', 'a']}, {'joint_state_order': ('b', 'a')}),
        ({'interpolate_from_desired_state': True}, {'controller': ControllerConfig(True, False)}),
        (
            {'allow_nonzero_velocity_at_trajectory_end': True},
            {'controller': ControllerConfig(False, True)},
        ),
        ({'max_lag_s': 2.0}, {'max_lag_s': 2.0}),
    ],
)
def test_when_a_parameter_is_set_expect_the_robot_to_have_it(values, changed):
    robot = config_from_mapping(SimRobotConfig, values).robot()
    assert robot == dataclasses.replace(SimRobotConfig().robot(), **changed)
    assert isinstance(robot, RobotConfig)


@pytest.mark.parametrize(
    ('values', 'changed'),
    [
        (
            {'image_width': 64, 'image_height': 32, 'cameras': ['front']},
            {'cameras': {'front': CameraSize(64, 32)}},
        ),
        ({'tool_link': 'tool0'}, {'tool_link': 'tool0'}),
        ({'cube_edge': 0.03}, {'cube_edge': 0.03}),
        ({'table_centre': [1.0, 2.0]}, {'table_centre': (1.0, 2.0)}),
        ({'table_size': [1.0, 2.0]}, {'table_size': (1.0, 2.0)}),
        (
            {
                'mount_names': ['top'], 'mount_links': ['arm'], 'mount_positions': [0.0, 0.0, 1.0],
                'mount_targets': [0.0, 0.1, 0.0], 'mount_ups': [1.0, 0.0, 0.0],
                'mount_fovy_deg': [50.0],
            },
            {
                'mounts': {
                    'top': CameraMount((0.0, 0.0, 1.0), (0.0, 0.1, 0.0), (1.0, 0.0, 0.0), 50.0,
                                       'arm')
                }
            },
        ),
    ],
)  # fmt: skip
def test_when_a_parameter_of_the_scene_is_set_expect_the_scene_to_have_it(values, changed):
    scene = config_from_mapping(SimRobotConfig, values).robot().scene
    assert scene == dataclasses.replace(SceneConfig(), **changed)


@pytest.mark.parametrize(
    ('values', 'changed'),
    [
        ({'joints': ['a', 'b'], 'home_position': [0.1, 0.2]}, {'home': (0.1, 0.2)}),
        ({'cube_origin': [0.1, 0.2]}, {'cube_origin': (0.1, 0.2)}),
        ({'cube_scale': 0.5}, {'cube_scale': 0.5}),
        ({'cube_yaw_deg': 180.0}, {'cube_yaw_rad': np.pi}),
    ],
)
def test_when_a_parameter_of_the_layout_is_set_expect_the_layout_to_have_it(values, changed):
    layout = config_from_mapping(SimRobotConfig, values).robot().layout
    assert layout == dataclasses.replace(Layout(), **changed)


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'home_position': [0.0]}, 'home_position has 1 values, not 7'),
        ({'mount_ups': [0.0, 0.0, 1.0]}, 'mount_ups has 3 values, not 6'),
        ({'mount_links': ['']}, 'mount_links has 1 values, not 2'),
        ({'table_size': [1.0]}, 'table_size has 1 values, not 2'),
        ({'cube_origin': [0.0, float('nan')]}, 'cube_origin must be finite'),
    ],
)
def test_when_a_list_is_of_another_length_expect_the_parameter_named(values, words):
    with pytest.raises(ParameterError, match=words):
        config_from_mapping(SimRobotConfig, values).robot()


@pytest.mark.parametrize(
    'values',
    [
        {'real_time_factor': 0.0},
        {'joint_state_rate_hz': 0.0},
        {'image_rate_hz': 0.0},
        {'image_width': 0},
        {'seed': -1},
        {'clock': 'moon'},
        {'command': 'force'},
        {'velocity_timeout_s': 0.0},
        {'cube_edge': 0.0},
        {'cube_scale': 0.0},
        {'cube_yaw_deg': 400.0},
    ],
)
def test_when_a_value_makes_no_sense_expect_the_parameter_named(values):
    with pytest.raises(ParameterError, match=next(iter(values))):
        config_from_mapping(SimRobotConfig, values)


def test_when_no_camera_is_drawn_expect_the_parameter_and_those_that_there_are_named():
    with pytest.raises(ParameterError, match="'cameras' is empty: .* front, wrist"):
        config_from_mapping(SimRobotConfig, {'cameras': []}).robot()


def test_when_the_franka_file_is_read_expect_only_known_parameters(urdf_path):
    values = read_yaml(urdf_path.parents[1] / 'config' / 'franka' / 'sim_robot.yaml')
    given = values['sim_robot']['ros__parameters']
    config_from_mapping(SimRobotConfig, given)
    assert set(given) <= {p.name for p in parameters_of(SimRobotConfig)}
