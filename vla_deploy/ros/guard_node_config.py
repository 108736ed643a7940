# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the guard node beside those of the guard itself (core/guard_config.py)."""

from __future__ import annotations

from dataclasses import dataclass

from vla_deploy.core.parameter import ParameterError, parameter


@dataclass(frozen=True)
class GuardNodeConfig:
    """Where the robot and its limits are described, and how the process runs."""

    robot_description: str = parameter('', 'URDF of the robot as text.')
    urdf_path: str = parameter(
        '', 'File of the URDF; with neither, the topic robot_description must have come.'
    )
    limits_path: str = parameter('', 'File with the limits that a URDF cannot hold.')
    enforce_jerk: bool = parameter(
        True,
        'Hold stops and clamped plans to the jerk limits of the file, by Ruckig; false: leave that '
        'to a robot whose own controller limits jerk. Follows clamped plans half a horizon late.',
    )
    joint_names: list[str] = parameter([], 'Joints under guard, in the order of the commands.')
    output_topics: list[str] = parameter(
        ['joint_trajectory'], 'Topics of the commands; the guard must be alone on each.'
    )
    output_types: list[str] = parameter(
        ['trajectory'],
        'Form of the commands on each topic: trajectory (trajectory_msgs/JointTrajectory), '
        'position_array or, with control_mode velocity, velocity_array '
        '(std_msgs/Float64MultiArray, one position or velocity a joint every tick); of Interbotix '
        'arms interbotix_group or interbotix_single (interbotix_xs_msgs, positions every tick).',
    )
    output_joints: list[str] = parameter(
        [],
        'Joints of each topic in the order of its controller, as one text with commas; every '
        'guarded joint in exactly one. Empty: one topic with all joint_names.',
    )
    estop_topics: list[str] = parameter(
        ['estop'],
        'Topics (std_msgs/Bool) of emergency stops, true: stop. Each is a source of its own, which '
        'no other can cancel; give each publisher its own.',
    )
    estop_required: bool = parameter(
        False,
        'No arming before each of estop_topics was heard, and an emergency stop when its '
        'publisher is gone.',
    )
    estop_timeout_s: float = parameter(
        0.0,
        'Silence of a topic that is an emergency stop, where estop_required: publish more often. '
        '0: only a publisher that leaves the graph is noticed, which for a killed one may take '
        'half a minute.',
        's',
        minimum=0.0,
        maximum=60.0,
    )
    output_names: list[str] = parameter(
        [],
        "For each topic the driver's name of the group or joint that a message of Interbotix is "
        'for; empty for others.',
    )
    output_scales: list[float] = parameter(
        [],
        'For each topic what a stream of positions is multiplied by, as for a gripper whose servo '
        'is commanded in rad and limited in m; none: 1.',
    )
    output_offsets: list[float] = parameter(
        [], 'For each topic what is added to that; none: 0.'
    )
    output_hysteresis: list[float] = parameter(
        [],
        'For each topic how far a joint must be commanded from what was sent last for something '
        'else to be sent, in streams of positions; none: 0.',
        'rad or m',
    )
    joint_state_topics: list[str] = parameter(
        ['joint_states'], 'Topics of joint states; together they make one.'
    )
    joint_state_prefixes: list[str] = parameter(
        [], 'For each of these topics what its joint names get before them; none: nothing.'
    )
    bundle: str = parameter(
        '',
        'Folder of the bundle that will be served: its digest goes into the genesis of the audit '
        'log. Empty: not known before the first chunk.',
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

    def __post_init__(self) -> None:
        """Raise ParameterError where parameters contradict each other."""
        if not self.estop_topics or len(set(self.estop_topics)) < len(self.estop_topics):
            raise ParameterError(
                f'estop_topics is {self.estop_topics!r}: name at least one topic, each once'
            )
        if self.estop_timeout_s and not self.estop_required:
            raise ParameterError(
                f'estop_timeout_s is {self.estop_timeout_s!r}, but estop_required is false'
            )
