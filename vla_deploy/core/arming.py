# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What must be so before a guard takes control of a robot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_deploy.core.joint_watch import JointWatch


def not_ready(
    joints: JointWatch, names: Sequence[str], fastest: float, subscribers: int,
    now_ros_ns: int, now_steady_ns: int,
) -> str:
    """Why the robot cannot be taken over now, as one line; empty if it can.

    fastest: velocity of a joint, rad/s or m/s, at which it still counts as standing.
    """
    if not joints.fresh(now_ros_ns, now_steady_ns):
        return 'there is no fresh joint state'
    if subscribers < 1:
        return 'nobody subscribes to the command topic'
    velocity = joints.velocity
    if velocity is None:
        return 'how fast the joints are is not known yet'
    if not (np.abs(velocity) <= fastest).all():
        j = int(np.nanargmax(np.abs(np.nan_to_num(velocity, nan=np.inf))))
        return f'{names[j]} moves at {velocity[j]:.4g}; stop the robot first'
    return ''
