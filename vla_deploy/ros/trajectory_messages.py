# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's trajectory as trajectory_msgs/JointTrajectory."""

from __future__ import annotations

import array
from collections.abc import Sequence

from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_deploy.core.trajectory import Trajectory
from vla_deploy.ros.conversions import NS_PER_S, time_msg


def trajectory_to_message(trajectory: Trajectory, joint_names: Sequence[str]) -> JointTrajectory:
    """Return the message whose header.stamp is the time of the first knot.

    Positions and velocities are the knots' own float64 values, unchanged.
    """
    msg = JointTrajectory(joint_names=joint_names)
    start_ns = trajectory.start_ns
    msg.header.stamp = time_msg(start_ns)
    points = []
    for time_ns, position, velocity in zip(
        trajectory.times.tolist(), trajectory.position, trajectory.velocity, strict=True
    ):
        point = JointTrajectoryPoint()
        # An array of the field's own type is taken as it is; a list is checked item by item.
        point.positions = array.array('d', position.tobytes())
        point.velocities = array.array('d', velocity.tobytes())
        sec, nanosec = divmod(time_ns - start_ns, NS_PER_S)
        point.time_from_start = Duration(sec=sec, nanosec=nanosec)
        points.append(point)
    msg.points = points
    return msg
