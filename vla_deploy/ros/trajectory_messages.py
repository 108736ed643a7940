# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's trajectory as trajectory_msgs/JointTrajectory, serialized (ros/cdr.py says why)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_deploy.core.trajectory import Trajectory
from vla_deploy.ros.cdr import ENCAPSULATION, CdrWriter
from vla_deploy.ros.conversions import NS_PER_S

_CELL = np.dtype('<f8')


class TrajectoryMessage:
    """One message that is filled again each tick.

    Every number of CDR lies at a multiple of its size. From its first position on, each point is
    therefore the same 2 * joints + 4 cells of 8 bytes: positions, the number of velocities,
    velocities, the numbers of accelerations and of efforts (none), time_from_start, and the number
    of positions of the point that follows.
    """

    def __init__(self, joint_names: Sequence[str]) -> None:
        joints = self._joints = len(joint_names)
        head = CdrWriter()
        for _ in range(2):  # header.stamp
            head.number('I', 0)
        head.text('')  # header.frame_id
        head.texts(joint_names)
        head.number('I', 0)  # how many points
        count_end = len(head)
        head.doubles(np.zeros(joints))  # the first point's positions
        self._head = head.take()[:-_CELL.itemsize * joints]
        self._stamp = np.frombuffer(self._head, '<i4', 2, len(ENCAPSULATION))
        self._count = np.frombuffer(self._head, '<u4', 1, count_end - 4)
        self._point = np.zeros(2 * joints + 4, _CELL)
        self._point.view('<u4')[[2 * joints, -2]] = joints  # lengths of velocities, of positions
        self._cells = np.empty((0, len(self._point)), _CELL)

    def fill(self, trajectory: Trajectory) -> bytes:
        """Return the message, to be published; header.stamp is the time of the first knot.

        Positions and velocities are the knots' own float64 values, unchanged.
        """
        joints, knots = self._joints, len(trajectory.ns)
        if len(self._cells) < knots:
            self._cells = np.tile(self._point, (knots, 1))
        cells = self._cells[:knots]
        cells[:, :joints] = trajectory.position
        cells[:, joints + 1:2 * joints + 1] = trajectory.velocity
        offsets = cells[:, -2:-1].view('<i4')
        np.divmod(trajectory.times - trajectory.start_ns, NS_PER_S,
                  out=(offsets[:, 0], offsets[:, 1]), casting='unsafe')
        self._stamp[:] = divmod(trajectory.start_ns, NS_PER_S)
        self._count[0] = knots
        return bytes(self._head) + cells.tobytes()[:-_CELL.itemsize]
