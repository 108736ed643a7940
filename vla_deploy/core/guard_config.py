# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the guard, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from vla_deploy.core.parameter import ParameterError, parameter


@dataclass(frozen=True)
class GuardConfig:
    """How the guard checks, follows and stops; rad and rad/s mean m and m/s on prismatic joints."""

    period_s: float = parameter(
        0.01, 'time between two ticks of the guard', 's', minimum=0.002, maximum=0.1
    )
    lead_s: float = parameter(
        0.02,
        'a new command takes effect this long after the tick; longer than the way to the '
        'controller plus one of its periods',
        's',
        minimum=0.0,
        maximum=0.5,
    )
    horizon_s: float = parameter(
        0.1,
        'how far ahead of now a plan is published before its braking tail; a guard that dies '
        'lets the robot go on for this long (up to twice this for slow plans), then brake',
        's',
        minimum=0.01,
        maximum=2.0,
    )
    control_mode: str = parameter(
        'position',
        'what the robot is commanded in, and with it the samples of every plan: position, or '
        'velocity with explicit zeros for hold',
        choices=('position', 'velocity'),
    )
    mode: str = parameter(
        'clamp',
        'what is done with a plan beyond a limit: clamp executes it within the limits, '
        'reject refuses it',
        choices=('clamp', 'reject'),
    )
    knot_scale: float = parameter(
        0.8,
        'part of the velocity and acceleration limits that finite differences of the samples '
        'may use',
        minimum=0.05,
        maximum=1.0,
    )
    soft_margin: float = parameter(
        0.005, 'room kept to each position limit', 'rad or m', minimum=0.0, maximum=1.0
    )
    start_jump: float = parameter(
        0.25,
        'largest distance of a plan, at its start, from the commanded and from the measured '
        'position of each joint; with control_mode velocity a plan begins where the robot is',
        'rad or m',
        minimum=1e-4,
        maximum=10.0,
    )
    gripper_joints: list[str] = parameter(
        [],
        'joints that what they hold may keep from where they are commanded: their measured '
        'position counts neither for tracking_error nor for start_jump',
    )
    tracking_error: float = parameter(
        0.2,
        'largest distance of a measured position from the commanded one at the same time; with '
        'control_mode velocity: largest way within 1 s that was not commanded',
        'rad or m',
        minimum=1e-4,
        maximum=10.0,
    )
    tracking_error_ticks: int = parameter(
        5, 'joint states in a row beyond tracking_error that make a fault', minimum=1, maximum=1000
    )
    joint_state_timeout_s: float = parameter(
        0.2, 'age in ROS time at which a joint state is stale', 's', minimum=0.005, maximum=10.0
    )
    joint_state_steady_timeout_s: float = parameter(
        1.0,
        'steady time without a new joint state at which it is stale, whatever ROS time says '
        '(a simulated clock that stands still)',
        's',
        minimum=0.005,
        maximum=60.0,
    )
    chunk_silence_s: float = parameter(
        2.0,
        'time without an accepted chunk after which the guard brakes and holds, even if the '
        'plan goes on',
        's',
        minimum=0.01,
        maximum=60.0,
    )
    tick_gap_s: float = parameter(
        0.25,
        'steady time between two ticks beyond which the plan is dropped and the robot held',
        's',
        minimum=0.002,
        maximum=10.0,
    )
    trip_count: int = parameter(
        10, 'refused or clamped chunks in a row that end in HOLD', minimum=1, maximum=100000
    )
    max_chunk_ahead_s: float = parameter(
        1.0, 'how far in the future a chunk may begin', 's', minimum=0.0, maximum=60.0
    )
    max_chunk_steps: int = parameter(
        1000, 'most samples of a chunk', minimum=2, maximum=100000
    )
    max_observation_age_s: float = parameter(
        1.0, 'age at which the observation behind a chunk is too old', 's', 0.001, 60.0
    )
    clock_tolerance_s: float = parameter(
        0.05, 'how far in the future a stamp of the past may lie', 's', minimum=0.0, maximum=1.0
    )
    join_window_s: float = parameter(
        0.5,
        'how far ahead a sample of a new plan may lie that the motion joins directly',
        's',
        minimum=0.02,
        maximum=5.0,
    )
    max_lag_s: float = parameter(
        0.5,
        'how far the motion may fall behind a plan that is slowed to stay within limits, before '
        'the plan is given up and the robot held',
        's',
        minimum=0.01,
        maximum=10.0,
    )
    arm_velocity: float = parameter(
        0.05,
        'largest velocity of a joint at which arming is allowed, as measured, or by positions '
        '0.1 s apart where joint states carry no velocities',
        'rad/s or m/s',
        minimum=0.0,
        maximum=10.0,
    )
    accept_placeholder_limits: bool = parameter(
        False, 'become active although limits in force are placeholders, not ratings of the robot'
    )
    shadow: bool = parameter(
        False, 'arming from DISARMED leads to SHADOW: chunks are judged and logged, nothing is sent'
    )

    def __post_init__(self) -> None:
        """Raise ParameterError where two parameters contradict each other."""
        least = self.lead_s + 2.0 * self.period_s
        if self.horizon_s < least:
            raise ParameterError(
                f'horizon_s is {self.horizon_s!r}, below lead_s + 2 * period_s = {least:g}'
            )
