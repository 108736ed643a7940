# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters reach the robot they describe."""

import dataclasses

import pytest

from vla_deploy.core.parameter import ParameterError, config_from_mapping, parameters_of
from vla_deploy.files import read_yaml
from vla_deploy.sim.config import SimRobotConfig
from vla_deploy.sim.controller import ControllerConfig
from vla_deploy.sim.robot import RobotConfig
from vla_deploy.sim.scene import CameraSize


def test_when_nothing_is_set_expect_the_defaults_of_the_field():
    robot = SimRobotConfig().robot()
    assert robot.controller == ControllerConfig(False, False)
    assert dict(robot.cameras) == {'front': CameraSize(256, 256), 'wrist': CameraSize(256, 256)}


@pytest.mark.parametrize(
    ('values', 'changed'),
    [
        ({'joints': ['a', 'b']}, {'joints': ('a', 'b')}),
        (
            {'image_width': 64, 'image_height': 32, 'cameras': ['front']},
            {'cameras': (('front', CameraSize(64, 32)),)},
        ),
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
    'values',
    [
        {'real_time_factor': 0.0},
        {'joint_state_rate_hz': 0.0},
        {'image_rate_hz': 0.0},
        {'image_width': 0},
        {'seed': -1},
        {'clock': 'moon'},
    ],
)
def test_when_a_value_makes_no_sense_expect_the_parameter_named(values):
    with pytest.raises(ParameterError, match=next(iter(values))):
        config_from_mapping(SimRobotConfig, values)


def test_when_the_franka_file_is_read_expect_only_known_parameters(urdf_path):
    values = read_yaml(urdf_path.parents[1] / 'config' / 'franka' / 'sim_robot.yaml')
    given = values['sim_robot']['ros__parameters']
    config_from_mapping(SimRobotConfig, given)
    assert set(given) <= {p.name for p in parameters_of(SimRobotConfig)}
