# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A trajectory controller that behaves like ROS 2 Jazzy's joint_trajectory_controller.

What is reproduced, on a position interface: a new trajectory replaces the running one at once, even
one that starts later; until its first point the motion goes there from the measured state, or from
the last command with `interpolate_from_desired_state`; a stamp of zero means now; after the last
point the last position is held. A trajectory that lies partly in the past is joined in the middle.

Refused beyond what that controller refuses: values that are not finite, a joint named twice, and
accelerations without velocities, which it takes and turns into nonsense.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim.spline import JointMotion, Knots, Spline

Vector = NDArray[np.float64]

# At rest means below single precision's epsilon, the bound of joint_trajectory_controller.
_REST_VELOCITY = float(np.finfo(np.float32).eps)


class TrajectoryRefusedError(ValueError):
    """A trajectory is not taken; the message names the joint or point and the reason."""


@dataclasses.dataclass(frozen=True)
class TrajectoryPoint:
    """One point; what is not given is empty. Values in the order of the trajectory's joints."""

    time_from_start_ns: int
    positions: Sequence[float]
    velocities: Sequence[float] = ()
    accelerations: Sequence[float] = ()
    effort: Sequence[float] = ()


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A commanded trajectory; it starts at `stamp_ns`, or at reception when that is 0."""

    stamp_ns: int
    joint_names: tuple[str, ...]
    points: tuple[TrajectoryPoint, ...]


@dataclasses.dataclass(frozen=True)
class ControllerConfig:
    """The two parameters of joint_trajectory_controller that matter here, with its defaults."""

    interpolate_from_desired_state: bool = False
    allow_nonzero_velocity_at_trajectory_end: bool = False


class TrajectoryController:
    """Follows one trajectory at a time; all vectors in the order of `joint_names`."""

    def __init__(
        self, joint_names: Sequence[str], position: Vector, config: ControllerConfig | None = None
    ) -> None:
        """Start by holding `position`."""
        self.joint_names = tuple(joint_names)
        self._config = config or ControllerConfig()
        self._spline: Spline | None = None
        self._last_time_ns: int | None = None
        self._last = JointMotion.at_rest(position)

    def hold(self, position: Vector) -> None:
        """Forget the trajectory and hold a position."""
        self._spline = None
        self._last_time_ns = None
        self._last = JointMotion.at_rest(position)

    def accept(self, trajectory: Trajectory, now_ns: int, measured: JointMotion) -> None:
        """Replace the running trajectory; raises TrajectoryRefusedError and keeps the old one."""
        start_ns = trajectory.stamp_ns or now_ns
        points = self._checked(trajectory, now_ns)
        points = dataclasses.replace(points, time_ns=points.time_ns + start_ns)
        if now_ns < points.time_ns[0]:
            before_ns, before = now_ns, measured
            if self._config.interpolate_from_desired_state:
                before = self._last
                before_ns = now_ns if self._last_time_ns is None else self._last_time_ns
            if before_ns < points.time_ns[0]:
                points = _with_start(points, before_ns, before)
        self._spline = Spline(points)

    def sample(self, now_ns: int) -> JointMotion:
        """Return what is commanded at a time; a time before the trajectory repeats the last."""
        if self._spline is None or now_ns < self._spline.start_ns:
            return self._last
        self._last = self._spline.sample(now_ns)
        self._last_time_ns = now_ns
        return self._last

    def _checked(self, trajectory: Trajectory, now_ns: int) -> Knots:
        """Return the points in this controller's joint order, times from the start."""
        order = self._joint_order(trajectory.joint_names)
        if not trajectory.points:
            raise TrajectoryRefusedError('trajectory has no points')
        knots = _knots(trajectory, order)
        late = np.flatnonzero(np.diff(knots.time_ns) <= 0)
        if late.size:
            raise TrajectoryRefusedError(
                f'time_from_start of point {late[0] + 1} is not later than that of the one before'
            )
        moving = np.abs(knots.velocity[-1]) > _REST_VELOCITY
        if moving.any() and not self._config.allow_nonzero_velocity_at_trajectory_end:
            joint = self.joint_names[int(np.flatnonzero(moving)[0])]
            raise TrajectoryRefusedError(f'trajectory does not end at rest: {joint} moves')
        end_ns = trajectory.stamp_ns + int(knots.time_ns[-1])
        if trajectory.stamp_ns and end_ns < now_ns:
            raise TrajectoryRefusedError(
                f'trajectory ended {(now_ns - end_ns) * 1e-9:.3f} s before it arrived'
            )
        return knots

    def _joint_order(self, names: tuple[str, ...]) -> NDArray[np.intp]:
        unknown = [n for n in names if n not in self.joint_names]
        missing = [n for n in self.joint_names if n not in names]
        if unknown or missing or len(names) != len(self.joint_names):
            problems = [
                f'{what} {", ".join(found)}'
                for what, found in (
                    ('unknown', unknown),
                    ('missing', missing),
                    ('named twice', sorted({n for n in names if names.count(n) > 1})),
                )
                if found
            ]
            raise TrajectoryRefusedError(f'joints do not match: {"; ".join(problems)}')
        return np.array([names.index(n) for n in self.joint_names], dtype=np.intp)


def _knots(trajectory: Trajectory, order: NDArray[np.intp]) -> Knots:
    points = trajectory.points
    for index, point in enumerate(points):
        if len(point.effort):
            raise TrajectoryRefusedError(f'point {index} has effort; positions are commanded here')
        if len(point.accelerations) and not len(point.velocities):
            raise TrajectoryRefusedError(f'point {index} has accelerations but no velocities')
        if not len(point.positions):
            raise TrajectoryRefusedError(f'point {index} has no positions')
    position, _ = _rows(trajectory, 'positions', order)
    velocity, has_velocity = _rows(trajectory, 'velocities', order)
    acceleration, has_acceleration = _rows(trajectory, 'accelerations', order)
    time_ns = np.array([p.time_from_start_ns for p in points], dtype=np.int64)
    return Knots(time_ns, position, velocity, acceleration, has_velocity, has_acceleration)


def _rows(
    trajectory: Trajectory, field: str, order: NDArray[np.intp]
) -> tuple[Vector, NDArray[np.bool_]]:
    """Return one field of all points [points, joints] in the controller's order, and where it is.

    Rows of points that do not have the field are 0.
    """
    joints = len(trajectory.joint_names)
    values = [getattr(point, field) for point in trajectory.points]
    rows = np.zeros((len(values), joints))
    there = np.array([len(row) > 0 for row in values])
    for index, row in enumerate(values):
        if len(row) not in (0, joints):
            raise TrajectoryRefusedError(f'point {index} has {len(row)} {field}, not {joints}')
    if there.all():
        rows[:] = values
    else:
        for index in np.flatnonzero(there):
            rows[index] = values[index]
    bad = np.argwhere(~np.isfinite(rows))
    if bad.size:
        point, joint = bad[0]
        raise TrajectoryRefusedError(
            f'point {point} has {field} that are not finite: {trajectory.joint_names[joint]}'
        )
    return rows[:, order], there


def _with_start(points: Knots, time_ns: int, state: JointMotion) -> Knots:
    """Put the state from which the motion begins before the first point."""
    return Knots(
        time_ns=np.concatenate(([time_ns], points.time_ns)),
        position=np.vstack((state.position, points.position)),
        velocity=np.vstack((state.velocity, points.velocity)),
        acceleration=np.vstack((state.acceleration, points.acceleration)),
        has_velocity=np.concatenate(([True], points.has_velocity)),
        has_acceleration=np.concatenate(([True], points.has_acceleration)),
    )
