# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated robot without ROS: physics under a controller, time as an argument."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim.controller import (
    ControllerConfig,
    Trajectory,
    TrajectoryController,
)
from vla_deploy.sim.reach import Placement, place_scene
from vla_deploy.sim.scene import Scene, SceneConfig, SceneError, SceneState
from vla_deploy.sim.spline import JointMotion
from vla_deploy.sim.velocity_controller import VelocityController

Vector = NDArray[np.float64]

_NS = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where arm and cubes of the reach task go on another robot.

    `home` is where the controller's joints start; empty: where the task puts those of its FR3. A
    cube that the task puts at (x, y) goes to origin + scale * (x, y), turned by `yaw_rad`.
    """

    home: tuple[float, ...] = ()
    cube_origin: tuple[float, float] = (0.0, 0.0)
    cube_scale: float = 1.0
    cube_yaw_rad: float = 0.0

    def apply(self, placement: Placement) -> Placement:
        """Return the placement as it is on this robot."""
        cosine, sine = np.cos(self.cube_yaw_rad), np.sin(self.cube_yaw_rad)
        cubes = tuple(
            dataclasses.replace(
                cube,
                x_m=self.cube_origin[0] + self.cube_scale * (cosine * cube.x_m - sine * cube.y_m),
                y_m=self.cube_origin[1] + self.cube_scale * (sine * cube.x_m + cosine * cube.y_m),
                yaw_rad=cube.yaw_rad + self.cube_yaw_rad,
            )
            for cube in placement.cubes
        )
        home = np.array(self.home) if self.home else placement.home_position_rad
        return dataclasses.replace(placement, home_position_rad=home, cubes=cubes)


@dataclasses.dataclass(frozen=True)
class RobotConfig:
    """What a simulated robot is made of; see SimRobotConfig for the meaning of each value."""

    joints: tuple[str, ...]
    scene: SceneConfig = dataclasses.field(default_factory=SceneConfig)
    layout: Layout = dataclasses.field(default_factory=Layout)
    controller: ControllerConfig = dataclasses.field(default_factory=ControllerConfig)
    command: str = 'position'
    velocity_timeout_s: float = 0.5
    joint_state_order: tuple[str, ...] = ()
    max_lag_s: float = 0.5


@dataclasses.dataclass(frozen=True)
class JointSample:
    """All joints at one moment; position and velocity float64 [joints] (rad or m, and per s)."""

    stamp_ns: int
    names: tuple[str, ...]
    position: Vector
    velocity: Vector


@dataclasses.dataclass(frozen=True)
class View:
    """What the cameras see at one moment; `black` asks for black images instead."""

    stamp_ns: int
    state: SceneState
    black: bool


def arrange(scene: Scene, joints: tuple[str, ...], placement: Placement) -> None:
    """Put the arm (its `joints`, in order) and the cubes where an episode starts."""
    home = placement.home_position_rad
    if len(home) != len(joints):
        raise SceneError(f'the task places {len(home)} joints, the controller has {len(joints)}')
    scene.set_joints(dict(zip(joints, home.tolist(), strict=True)))
    scene.place_cubes(
        {cube.colour: (cube.x_m, cube.y_m) for cube in placement.cubes},
        {cube.colour: cube.yaw_rad for cube in placement.cubes},
    )


class SimulatedRobot:
    """Physics that follows a clock given by the caller, and the controller that drives it."""

    def __init__(self, urdf_text: str, config: RobotConfig, seed: int, now_ns: int) -> None:
        """Build the scene and place it; raises SceneError naming what does not fit."""
        self._config = config
        self.scene = Scene(urdf_text, config.scene)
        self._arm = self.scene.indices(config.joints)
        for mimic in self.scene.mimics:
            if mimic.index in self._arm:
                name, master = (self.scene.joint_names[i] for i in (mimic.index, mimic.master))
                raise SceneError(f'joint {name!r} follows {master!r} and has no drive of its own')
        self._check_home()
        self._published = config.joint_state_order or self.scene.joint_names
        self._published_index = self.scene.indices(self._published)
        self._step_ns = round(self.scene.config.time_step_s * _NS)
        self._time_ns = now_ns
        self._black = False
        self._command = self.scene.positions
        self._feed_forward = np.zeros_like(self._command)
        self.controller: TrajectoryController | VelocityController
        start = self._command[self._arm]
        if config.command == 'velocity':
            self.controller = VelocityController(config.joints, start, config.velocity_timeout_s)
        else:
            self.controller = TrajectoryController(config.joints, start, config.controller)
        self.reset(seed, black_images=False)

    def _check_home(self) -> None:
        home = self._config.layout.home
        for name, index, value in zip(self._config.joints, self._arm, home, strict=False):
            lower, upper = self.scene.lower[index], self.scene.upper[index]
            if not lower <= value <= upper:
                raise SceneError(
                    f'joint {name!r} cannot start at {value:g}: its range is {lower:g} to {upper:g}'
                )

    @property
    def time_ns(self) -> int:
        """The time up to which physics has gone."""
        return self._time_ns

    def go_on_from(self, now_ns: int) -> None:
        """Set the time without simulating what lies between."""
        self._time_ns = now_ns

    def reset(self, seed: int, black_images: bool) -> Placement:
        """Place arm and cubes for a seed, at rest; any running trajectory is forgotten."""
        placement = self._config.layout.apply(place_scene(seed))
        arrange(self.scene, self._config.joints, placement)
        self._command = self.scene.positions
        self._feed_forward[:] = 0.0
        self.controller.hold(self._command[self._arm])
        self._black = black_images
        return placement

    def accept(self, trajectory: Trajectory, now_ns: int) -> None:
        """Give the controller a trajectory at its time of arrival; raises as it does."""
        assert isinstance(self.controller, TrajectoryController)
        self.advance(now_ns)
        position, velocity = self.scene.positions[self._arm], self.scene.velocities[self._arm]
        measured = JointMotion(position, velocity, np.zeros_like(position))
        self.controller.accept(trajectory, now_ns, measured)

    def accept_velocity(self, velocity: Sequence[float], now_ns: int) -> None:
        """Give the controller velocities at their time of arrival; raises as it does."""
        assert isinstance(self.controller, VelocityController)
        self.advance(now_ns)
        self.controller.accept(velocity, now_ns)

    def advance(self, now_ns: int) -> float:
        """Take all physics steps that are due; return the seconds that were left out.

        Where time jumped, forward by more than `max_lag_s` or backward by as much, the physics is
        not run through the gap: it goes on from the new time.
        """
        gap_s = (now_ns - self._time_ns) / _NS
        left_out_s = 0.0
        if abs(gap_s) > self._config.max_lag_s:
            left_out_s = gap_s
            self.go_on_from(now_ns)
        while self._time_ns + self._step_ns <= now_ns:
            self._step()
        return left_out_s

    def _step(self) -> None:
        """Command the point of one step ahead, as ros2_control does, and step."""
        self._time_ns += self._step_ns
        motion = self.controller.sample(self._time_ns)
        self._command[self._arm] = motion.position
        self._feed_forward[self._arm] = motion.velocity
        for mimic in self.scene.mimics:
            mimic.follow(self._command, self._feed_forward)
        self.scene.command(self._command, self._feed_forward)
        self.scene.step()

    def joint_sample(self) -> JointSample:
        """Return what the joint sensors read."""
        index = self._published_index
        return JointSample(
            self._time_ns,
            self._published,
            self.scene.positions[index],
            self.scene.velocities[index],
        )

    def view(self) -> View:
        """Return what the cameras would see, to be drawn elsewhere."""
        return View(self._time_ns, self.scene.snapshot(), self._black)
