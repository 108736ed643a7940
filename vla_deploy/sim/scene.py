# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated world: a robot from its URDF, a table, three coloured cubes and cameras.

The base frame of the robot (its root link) is the world frame: z up, the table top at z = 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.urdf import Urdf, UrdfError, parse_urdf
from vla_deploy.sim.mujoco_loader import load_mujoco
from vla_deploy.sim.scene_config import CUBE_COLOURS, CameraSize, SceneConfig, SceneError
from vla_deploy.sim.scene_model import compile_scene, cube_body

__all__ = ['CameraSize', 'Mimic', 'Scene', 'SceneConfig', 'SceneError', 'SceneState', 'Vector']

Vector = NDArray[np.float64]

@dataclasses.dataclass(frozen=True)
class SceneState:
    """A copy of what can be seen at one moment; enough to draw it in another thread."""

    time_s: float
    joint_positions: Vector
    cube_positions: Vector
    cube_quaternions: Vector


class Scene:
    """One simulated world. Joint vectors are in the order of `joint_names` (rad or m)."""

    def __init__(self, urdf_text: str, config: SceneConfig | None = None) -> None:
        """Build the world; raises SceneError when the URDF cannot be read or lacks a link."""
        self.config = config or SceneConfig()
        self._mujoco = load_mujoco()
        self.model = compile_scene(self._mujoco, urdf_text, self.config)
        self.data = self._mujoco.MjData(self.model)
        self.joint_names = tuple(self.model.joint(i).name for i in range(self.model.njnt))
        limited = self.model.jnt_limited.astype(bool)
        self.lower = np.where(limited, self.model.jnt_range[:, 0], -np.inf)
        self.upper = np.where(limited, self.model.jnt_range[:, 1], np.inf)
        self._index = {name: i for i, name in enumerate(self.joint_names)}
        self.mimics = _mimics(_parsed(urdf_text), self._index)
        self._tool = self.model.body(self.config.tool_link).id
        self._mocap = {c: int(self.model.body(cube_body(c)).mocapid[0]) for c in CUBE_COLOURS}
        self._actuators = self.model.njnt
        self.set_joints({})

    @property
    def time_s(self) -> float:
        """Simulated time since the world was built [s]."""
        return float(self.data.time)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras that can be drawn."""
        return tuple(self.config.cameras)

    @property
    def base_link(self) -> str:
        """Name of the robot's root link, the frame of every position here."""
        return str(self.model.body(1).name)

    def index(self, joint: str) -> int:
        """Return the place of a joint in every joint vector; raises SceneError."""
        if joint not in self._index:
            raise SceneError(f'unknown joint {joint!r}; the scene has {", ".join(self._index)}')
        return self._index[joint]

    def indices(self, joints: tuple[str, ...]) -> NDArray[np.int64]:
        """Return the places of several joints; raises SceneError for an unknown one."""
        return np.array([self.index(joint) for joint in joints], dtype=np.int64)

    def set_joints(self, positions: Mapping[str, float]) -> None:
        """Put joints somewhere at once, at rest.

        Of the others, those that mimic follow, the rest go to the nearest point to 0 they have.
        """
        target = np.clip(0.0, self.lower, self.upper)
        for joint, value in positions.items():
            target[self.index(joint)] = value
        for mimic in self.mimics:
            if self.joint_names[mimic.index] not in positions:
                mimic.follow(target)
        self.data.qpos[:], self.data.qvel[:] = target, 0.0
        self.command(target)
        self._mujoco.mj_forward(self.model, self.data)

    def place_cubes(
        self, positions: Mapping[str, Any], yaw_rad: Mapping[str, float] | None = None
    ) -> None:
        """Put cubes at (x, y) on the table or at (x, y, z); z is that of the cube's centre."""
        for colour, position in positions.items():
            if colour not in self._mocap:
                raise SceneError(f'unknown cube {colour!r}; there are {", ".join(self._mocap)}')
            place = np.asarray(position, dtype=np.float64)
            if place.shape not in ((2,), (3,)) or not np.isfinite(place).all():
                raise SceneError(f'{colour} cube cannot be put at {position!r}')
            index = self._mocap[colour]
            self.data.mocap_pos[index, :2] = place[:2]
            self.data.mocap_pos[index, 2] = (
                place[2] if len(place) == 3 else self.config.cube_edge / 2
            )
            half = (yaw_rad or {}).get(colour, 0.0) / 2
            self.data.mocap_quat[index] = (np.cos(half), 0.0, 0.0, np.sin(half))
        self._mujoco.mj_forward(self.model, self.data)

    def cube_positions(self) -> dict[str, Vector]:
        """Return the centre of each cube [m]."""
        return {c: self.data.mocap_pos[i].copy() for c, i in self._mocap.items()}

    def command(self, position: Vector, velocity: Vector | None = None) -> None:
        """Set what the servos follow from now on: position and, if known, velocity."""
        self.data.ctrl[: self._actuators] = position
        self.data.ctrl[self._actuators :] = 0.0 if velocity is None else velocity

    def step(self) -> None:
        """Advance the physics by one time step."""
        self._mujoco.mj_step(self.model, self.data)

    def step_for(self, duration_s: float) -> None:
        """Advance the physics by the whole number of steps nearest to a duration."""
        for _ in range(round(duration_s / self.config.time_step_s)):
            self.step()

    @property
    def positions(self) -> Vector:
        """Measured joint positions (a copy)."""
        return np.array(self.data.qpos, dtype=np.float64)

    @property
    def velocities(self) -> Vector:
        """Measured joint velocities (a copy)."""
        return np.array(self.data.qvel, dtype=np.float64)

    def tool_position(self) -> Vector:
        """Return the tool link's origin in the base frame [m] for the present joint positions."""
        self._mujoco.mj_kinematics(self.model, self.data)
        return np.array(self.data.xpos[self._tool], dtype=np.float64)

    def tool_rotation(self) -> Vector:
        """Return the tool link's rotation matrix [3, 3] in the base frame."""
        self._mujoco.mj_kinematics(self.model, self.data)
        return np.array(self.data.xmat[self._tool], dtype=np.float64).reshape(3, 3)

    def tool_jacobian(self) -> Vector:
        """Return the tool's Jacobian [6, joints]: three rows of translation, three of rotation."""
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_comPos(self.model, self.data)
        jacobian = np.zeros((6, self.model.nv))
        self._mujoco.mj_jacBody(
            self.model, self.data, jacobian[:3], jacobian[3:], self._tool
        )
        return jacobian

    def snapshot(self) -> SceneState:
        """Return a copy of what can be seen now."""
        return SceneState(
            self.time_s,
            self.positions,
            self.data.mocap_pos.copy(),
            self.data.mocap_quat.copy(),
        )


@dataclasses.dataclass(frozen=True)
class Mimic:
    """A joint that follows another: at multiplier * q + offset. Indices are those of the scene."""

    index: int
    master: int
    multiplier: float
    offset: float

    def follow(self, position: Vector, velocity: Vector | None = None) -> None:
        """Set the joint's own entry of joint vectors from the one that it follows."""
        position[self.index] = self.multiplier * position[self.master] + self.offset
        if velocity is not None:
            velocity[self.index] = self.multiplier * velocity[self.master]


def _parsed(urdf_text: str) -> Urdf:
    try:
        return parse_urdf(urdf_text)
    except UrdfError as error:
        raise SceneError(f'robot description: {error}') from error


def _mimics(urdf: Urdf, index: Mapping[str, int]) -> tuple[Mimic, ...]:
    return tuple(
        Mimic(index[joint.name], index[joint.mimics], joint.mimic_multiplier, joint.mimic_offset)
        for joint in urdf.joints.values()
        if joint.mimics is not None
    )
