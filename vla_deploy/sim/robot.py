# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated robot without ROS: physics under a trajectory controller, time as an argument."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim.controller import (
    ControllerConfig,
    Trajectory,
    TrajectoryController,
)
from vla_deploy.sim.reach import Placement, place_scene
from vla_deploy.sim.scene import CameraSize, Scene, SceneConfig, SceneError, SceneState
from vla_deploy.sim.spline import JointMotion

Vector = NDArray[np.float64]

_NS = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class RobotConfig:
    """What a simulated robot is made of; see SimRobotConfig for the meaning of each value."""

    joints: tuple[str, ...]
    cameras: tuple[tuple[str, CameraSize], ...] = (
        ('front', CameraSize()),
        ('wrist', CameraSize()),
    )
    controller: ControllerConfig = dataclasses.field(default_factory=ControllerConfig)
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
        self.scene = Scene(urdf_text, SceneConfig(cameras=dict(config.cameras)))
        self._arm = self.scene.indices(config.joints)
        self._step_ns = round(self.scene.config.time_step_s * _NS)
        self._time_ns = now_ns
        self._black = False
        self._command = self.scene.positions
        self._feed_forward = np.zeros_like(self._command)
        self.controller = TrajectoryController(
            config.joints, self._command[self._arm], config.controller
        )
        self.reset(seed, black_images=False)

    @property
    def time_ns(self) -> int:
        """The time up to which physics has gone."""
        return self._time_ns

    def go_on_from(self, now_ns: int) -> None:
        """Set the time without simulating what lies between."""
        self._time_ns = now_ns

    def reset(self, seed: int, black_images: bool) -> Placement:
        """Place arm and cubes for a seed, at rest; any running trajectory is forgotten."""
        placement = place_scene(seed)
        arrange(self.scene, self._config.joints, placement)
        self._command = self.scene.positions
        self._feed_forward[:] = 0.0
        self.controller.hold(self._command[self._arm])
        self._black = black_images
        return placement

    def accept(self, trajectory: Trajectory, now_ns: int) -> None:
        """Give the controller a trajectory at its time of arrival; raises as it does."""
        self.advance(now_ns)
        position, velocity = self.scene.positions[self._arm], self.scene.velocities[self._arm]
        measured = JointMotion(position, velocity, np.zeros_like(position))
        self.controller.accept(trajectory, now_ns, measured)

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
        """Command the point of one step ahead, as joint_trajectory_controller does, and step."""
        self._time_ns += self._step_ns
        motion = self.controller.sample(self._time_ns)
        self._command[self._arm] = motion.position
        self._feed_forward[self._arm] = motion.velocity
        self.scene.command(self._command, self._feed_forward)
        self.scene.step()

    def joint_sample(self) -> JointSample:
        """Return what the joint sensors read."""
        return JointSample(
            self._time_ns, self.scene.joint_names, self.scene.positions, self.scene.velocities
        )

    def view(self) -> View:
        """Return what the cameras would see, to be drawn elsewhere."""
        return View(self._time_ns, self.scene.snapshot(), self._black)
