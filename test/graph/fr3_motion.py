# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The FR3 that tests move: its files, its limits, a motion, and when a trajectory stands still."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.core.bounds import GRID_NS, Bounds
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.jerk import JerkMotion
from vla_deploy.core.limits import JointLimits, load_limits
from vla_deploy.core.trajectory import Trajectory
from vla_deploy.core.urdf import parse_urdf
from vla_deploy.files import read_text, read_yaml
from vla_deploy.ros.conversions import duration_s, time_ns
from vla_deploy.share import share_directory

SHARE = share_directory()
URDF = SHARE / 'urdf' / 'fr3.urdf'
LIMITS = SHARE / 'config' / 'franka' / 'joint_limits.yaml'
JOINTS = tuple(f'fr3_joint{i}' for i in range(1, 8))
HOME = (0.0, -0.4, 0.0, -2.2, 0.0, 1.8, 0.785)
LEAD_NS = round(GuardConfig().lead_s * 1e9)
# How often each fault is tried: `make faults` says 10.
REPEATS = range(int(os.environ.get('FAULT_REPEATS', '1')))
PERIOD_S = 0.1  # between the samples of chunks that tests publish


def fr3_limits() -> JointLimits:
    """The limits that the guard has from the package's own files."""
    return load_limits(parse_urdf(read_text(URDF)), JOINTS, read_yaml(LIMITS))


def guard_parameters() -> dict[str, Any]:
    """Parameters of a guard of the simulated FR3 that starts by itself and arms itself."""
    return {
        'autostart': True,
        'urdf_path': str(URDF),
        'limits_path': str(LIMITS),
        'joint_names': list(JOINTS),
        'simulated': True,
        'auto_arm': True,
        # Real-time priority, so that a busy machine is no reason for a late tick. Where it is not
        # granted the guard says so and goes on.
        'sched_fifo_priority': 50,
        # Nor is a robot's process that had to wait for a processor.
        'joint_state_timeout_s': 1.0,
        'joint_state_steady_timeout_s': 3.0,
    }


def sweep(start: np.ndarray, joint: int, distance: float, duration_s: float) -> np.ndarray:
    """Return samples [steps, joints] that move one joint smoothly from rest to rest."""
    steps = round(duration_s / PERIOD_S) + 1
    samples = np.tile(np.asarray(start, np.float64), (steps, 1))
    part = np.linspace(0.0, 1.0, steps)
    samples[:, joint] += distance * part**3 * (10 - 15 * part + 6 * part**2)
    return samples


def rest_time_ns(trajectory: JointTrajectory) -> int:
    """Return the time from which a trajectory stands still; every one of the guard's ends so."""
    speeds = [np.abs(point.velocities).max() for point in trajectory.points]
    moving = [i for i, speed in enumerate(speeds) if speed > 0.0]
    assert not moving or moving[-1] + 1 < len(speeds), 'the trajectory does not end at rest'
    first_at_rest = moving[-1] + 1 if moving else 0
    offset = duration_s(trajectory.points[first_at_rest].time_from_start)
    return time_ns(trajectory.header.stamp) + round(offset * 1e9)


def latest_rest_ns(trajectory: JointTrajectory, decided_ns: int, limits: JointLimits) -> int:
    """Return when a guard that decides at a time to brake must have brought it to rest.

    Braking takes effect after the lead, put off by up to two steps of the grid that knots lie on,
    and ends on that grid. Deceleration rises within the jerk limit, from as much acceleration as
    there may be, and falls to zero within it.
    """
    smooth = JerkMotion.of(limits, Bounds.of(limits, GuardConfig().soft_margin))
    assert smooth is not None
    turns_s = 3.0 * smooth.acceleration / smooth.jerk
    start_ns = time_ns(trajectory.header.stamp)
    columns = [list(trajectory.joint_names).index(name) for name in limits.names]
    motion = Trajectory.of(
        start_ns + np.array([time_ns(p.time_from_start) for p in trajectory.points]),
        np.array([p.positions for p in trajectory.points])[:, columns],
        np.array([p.velocities for p in trajectory.points])[:, columns],
    )
    begins_ns = [decided_ns + LEAD_NS + steps * GRID_NS for steps in range(3)]
    brakes_s = [np.max(np.abs(motion.state(t)[1]) / smooth.acceleration + turns_s)
                for t in begins_ns]
    ends_ns = [t + round(s * 1e9) for t, s in zip(begins_ns, brakes_s, strict=True)]
    return max(ends_ns) + GRID_NS
