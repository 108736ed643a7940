# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Messages of the simulated robot to its own types and back."""

from __future__ import annotations

from builtin_interfaces.msg import Duration
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.ros.conversions import NS_PER_S, time_msg, time_ns
from vla_deploy.sim.controller import Trajectory, TrajectoryPoint
from vla_deploy.sim.robot import JointSample


def trajectory_from_msg(msg: JointTrajectory) -> Trajectory:
    """Return the trajectory of a message; nothing is checked here."""
    return Trajectory(
        stamp_ns=time_ns(msg.header.stamp),
        joint_names=tuple(msg.joint_names),
        points=tuple(
            TrajectoryPoint(
                time_from_start_ns=_duration_ns(point.time_from_start),
                positions=point.positions,
                velocities=point.velocities,
                accelerations=point.accelerations,
                effort=point.effort,
            )
            for point in msg.points
        ),
    )


def joint_state_msg(sample: JointSample) -> JointState:
    """Return the message of a joint sample: positions and velocities, no efforts."""
    msg = JointState(name=list(sample.names))
    msg.header.stamp = time_msg(sample.stamp_ns)
    msg.position = sample.position.tolist()
    msg.velocity = sample.velocity.tolist()
    return msg


def _duration_ns(duration: Duration) -> int:
    return int(duration.sec) * NS_PER_S + int(duration.nanosec)
