# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the guard node beside those of the guard itself (core/guard_config.py)."""

from __future__ import annotations

from dataclasses import dataclass

from vla_deploy.core.parameter import parameter


@dataclass(frozen=True)
class GuardNodeConfig:
    """Where the robot and its limits are described, and how the process runs."""

    robot_description: str = parameter('', 'URDF of the robot as text.')
    urdf_path: str = parameter(
        '', 'File of the URDF; with neither, the topic robot_description must have come.'
    )
    limits_path: str = parameter('', 'File with the limits that a URDF cannot hold.')
    joint_names: list[str] = parameter([], 'Joints under guard, in the order of the commands.')
    output_topics: list[str] = parameter(
        ['joint_trajectory'], 'Topics of the commands; the guard must be alone on each.'
    )
    output_types: list[str] = parameter(
        ['trajectory'],
        'Form of the commands on each topic: trajectory (trajectory_msgs/JointTrajectory), '
        'position_array or, with control_mode velocity, velocity_array '
        '(std_msgs/Float64MultiArray, one position or velocity a joint every tick).',
    )
    output_joints: list[str] = parameter(
        [],
        'Joints of each topic in the order of its controller, as one text with commas; every '
        'guarded joint in exactly one. Empty: one topic with all joint_names.',
    )
    simulated: bool = parameter(False, 'The robot is simulated; without this, auto_arm is refused.')
    auto_arm: bool = parameter(False, 'Arm once after activation; simulated robots only.')
    sched_fifo_priority: int = parameter(
        0, 'Real-time priority to ask for; 0: none.', minimum=0, maximum=99
    )
    violations_per_s: float = parameter(
        10.0,
        'Equal violations (rule and joint) that are published; the others are counted.',
        '1/s',
        minimum=0.1,
        maximum=1000.0,
    )
