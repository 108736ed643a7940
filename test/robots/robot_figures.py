# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The published figures of each robot, typed in once more; and readers of its files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_deploy.core.limits import JointLimits, load_limits
from vla_deploy.core.parameter import config_from_mapping
from vla_deploy.core.urdf import Urdf, parse_urdf
from vla_deploy.files import read_text, read_yaml
from vla_deploy.sim.config import SimRobotConfig

ROOT = Path(__file__).parents[2]
PI, TURN = math.pi, 2 * math.pi
DEG = math.pi / 180
EDGE = PI - 1e-5


@dataclass(frozen=True)
class Figures:
    """Limits of the guarded joints, in the order of the commands; rad, m, s, N m, N."""

    joints: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...]
    effort: tuple[float, ...]
    acceleration: tuple[float, ...]
    jerk: tuple[float, ...] | None = None
    placeholder: bool = True


UR_JOINTS = (
    'shoulder_pan_joint', 'shoulder_lift_joint', 'elbow_joint',
    'wrist_1_joint', 'wrist_2_joint', 'wrist_3_joint',
)  # fmt: skip
UR_RANGE = (TURN, TURN, PI, TURN, TURN, TURN)
VIPER_JOINTS = ('waist', 'shoulder', 'elbow', 'forearm_roll', 'wrist_angle', 'wrist_rotate')
SO_JOINTS = (
    'shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'wrist_roll', 'gripper',
)  # fmt: skip


def universal_robot(velocity: tuple[float, ...], effort: tuple[float, ...]) -> Figures:
    return Figures(
        UR_JOINTS, tuple(-u for u in UR_RANGE), UR_RANGE, velocity, effort, (5.0,) * 6
    )


FIGURES = {
    'franka': Figures(
        joints=tuple(f'fr3_joint{i}' for i in range(1, 8)),
        lower=(-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159),
        upper=(2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159),
        velocity=(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
        effort=(87, 87, 87, 87, 12, 12, 12),
        acceleration=(10.0,) * 7,
        jerk=(5000.0,) * 7,
        placeholder=False,
    ),
    'fer': Figures(
        joints=tuple(f'fer_joint{i}' for i in range(1, 8)),
        lower=(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
        upper=(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
        velocity=(2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61),
        effort=(87, 87, 87, 87, 12, 12, 12),
        acceleration=(15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
        jerk=(7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
        placeholder=False,
    ),
    'ur3': universal_robot((PI, PI, PI, TURN, TURN, TURN), (56, 56, 28, 12, 12, 12)),
    'ur3e': universal_robot((PI, PI, PI, TURN, TURN, TURN), (54, 54, 28, 9, 9, 9)),
    'ur5': universal_robot((PI,) * 6, (150, 150, 150, 28, 28, 28)),
    'aloha': Figures(
        joints=tuple(
            f'follower_{side}/{name}'
            for side in ('left', 'right')
            for name in (*VIPER_JOINTS, 'left_finger')
        ),
        lower=(-EDGE, -106 * DEG, -101 * DEG, -EDGE, -107 * DEG, -EDGE, 0.021) * 2,
        upper=(EDGE, 72 * DEG, 92 * DEG, EDGE, 128 * DEG, EDGE, 0.057) * 2,
        velocity=(PI, PI, PI, PI, PI, PI, 1.0) * 2,
        effort=(10, 20, 15, 2, 5, 1, 5) * 2,
        acceleration=(5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 2.0) * 2,
    ),
    'so100': Figures(
        joints=SO_JOINTS,
        lower=(-2.0, 0.0, -3.14158, -2.5, -3.14158, -0.2),
        upper=(2.0, 3.5, 0.0, 1.2, 3.14158, 2.0),
        velocity=(1.0,) * 6,
        effort=(35,) * 6,
        acceleration=(5.0,) * 6,
    ),
    'so101': Figures(
        joints=SO_JOINTS,
        lower=(-1.91986, -1.74533, -1.69, -1.65806, -2.74385, -0.174533),
        upper=(1.91986, 1.74533, 1.69, 1.65806, 2.84121, 1.74533),
        velocity=(10.0,) * 6,
        effort=(10,) * 6,
        acceleration=(5.0,) * 6,
    ),
    'quadcopter': Figures(
        joints=('base_x', 'base_y', 'base_z', 'base_yaw'),
        lower=(-5.0, -5.0, 0.0, -math.inf),
        upper=(5.0, 5.0, 3.0, math.inf),
        velocity=(1.0,) * 4,
        effort=(30, 30, 30, 5),
        acceleration=(1.5, 1.5, 1.0, 2.0),
    ),
}
ROBOTS = tuple(FIGURES)


def read(robot: str, file: str) -> Any:
    """Return a parsed file of config/<robot>/."""
    return read_yaml(ROOT / 'config' / robot / file)


def parameters(robot: str, file: str) -> dict[str, Any]:
    """Return the parameters in a parameter file, whatever the name of its node."""
    (node,) = read(robot, file).values()
    return dict(node['ros__parameters'])


def urdf_text(robot: str) -> str:
    return read_text(ROOT / read(robot, 'bringup.yaml')['urdf'])


def urdf(robot: str) -> Urdf:
    return parse_urdf(urdf_text(robot))


def limits(robot: str) -> JointLimits:
    """The limits as the guard reads them."""
    joints = parameters(robot, 'guard.yaml')['joint_names']
    return load_limits(urdf(robot), joints, read(robot, 'joint_limits.yaml'))


def simulation(robot: str, **changes: Any) -> SimRobotConfig:
    """The simulated robot's parameters as the node reads them."""
    return config_from_mapping(
        SimRobotConfig, {**parameters(robot, 'sim_robot.yaml'), **changes}
    )
