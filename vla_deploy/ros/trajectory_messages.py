# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's trajectory as trajectory_msgs/JointTrajectory."""

from __future__ import annotations

from collections.abc import Sequence

from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_deploy.core.trajectory import Trajectory
from vla_deploy.ros.conversions import NS_PER_S, time_msg


class TrajectoryMessage:
    """One message that is filled again each tick: making its points anew takes most of a tick."""

    def __init__(self, joint_names: Sequence[str]) -> None:
        self._msg = JointTrajectory(joint_names=list(joint_names))
        self._points: list[JointTrajectoryPoint] = []

    def fill(self, trajectory: Trajectory) -> JointTrajectory:
        """Return the message whose header.stamp is the time of the first knot.

        Positions and velocities are the knots' own float64 values, unchanged. The message is valid
        until the next call; publishing copies it.
        """
        start_ns, knots = trajectory.start_ns, len(trajectory.times)
        self._msg.header.stamp = time_msg(start_ns)
        while len(self._points) < knots:
            self._points.append(JointTrajectoryPoint())
        points = self._points[:knots]
        for point, time_ns, position, velocity in zip(
            points,
            trajectory.times.tolist(),
            trajectory.position.tolist(),
            trajectory.velocity.tolist(),
            strict=True,
        ):
            point.positions, point.velocities = position, velocity
            offset = point.time_from_start
            offset.sec, offset.nanosec = divmod(time_ns - start_ns, NS_PER_S)
        self._msg.points = points
        return self._msg
