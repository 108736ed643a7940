# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated world: a robot from its URDF, a table, three coloured cubes and two cameras.

The base frame of the robot (its root link) is the world frame: z up, the table top at z = 0.
Nothing collides: cubes are drawn, not touched. Joints are driven by position servos with velocity
feed-forward, limited by the effort of the URDF, and gravity is compensated.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim.mujoco_loader import load_mujoco

Vector = NDArray[np.float64]

CUBE_COLOURS: dict[str, tuple[float, float, float, float]] = {
    'red': (0.85, 0.1, 0.1, 1.0),
    'green': (0.1, 0.7, 0.15, 1.0),
    'blue': (0.1, 0.2, 0.85, 1.0),
}
TOOL_SITE = 'tcp'
# Servo gains for each joint kind and the reflected inertia of motor and gear. Chosen stiff: the
# position error at 10 rad/s2 stays below 3 mrad. SI units.
_REVOLUTE_GAINS = (6000.0, 300.0, 0.2)
_WRIST_GAINS = (2500.0, 90.0, 0.1)
_PRISMATIC_GAINS = (4000.0, 80.0, 0.1)
_WRIST_EFFORT = 20.0  # a revolute joint with less effort than this [Nm] gets the wrist gains


class SceneError(ValueError):
    """The scene cannot be built or asked for; the message names the joint, cube or link."""


@dataclasses.dataclass(frozen=True)
class CameraSize:
    """Image size of one camera [pixels]."""

    width: int = 256
    height: int = 256


@dataclasses.dataclass(frozen=True)
class SceneConfig:
    """What stands where; lengths in m, angles in degrees, positions in the base frame."""

    cameras: Mapping[str, CameraSize] = dataclasses.field(
        default_factory=lambda: {'front': CameraSize(), 'wrist': CameraSize()}
    )
    time_step_s: float = 0.002
    cube_edge: float = 0.05
    tool_link: str = 'fr3_hand_tcp'
    hand_link: str = 'fr3_hand'
    front_position: tuple[float, float, float] = (1.15, 0.0, 0.75)
    front_target: tuple[float, float, float] = (0.48, 0.0, 0.05)
    front_fovy_deg: float = 40.0
    wrist_position: tuple[float, float, float] = (0.08, 0.0, 0.03)  # in the hand's frame
    wrist_target: tuple[float, float, float] = (0.045, 0.0, 0.2)
    wrist_fovy_deg: float = 75.0


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
        self.model = _compile(self._mujoco, urdf_text, self.config)
        self.data = self._mujoco.MjData(self.model)
        self.joint_names = tuple(self.model.joint(i).name for i in range(self.model.njnt))
        self.lower, self.upper = (self.model.jnt_range[:, side].copy() for side in (0, 1))
        self._index = {name: i for i, name in enumerate(self.joint_names)}
        self._tool = self.model.body(self.config.tool_link).id
        self._mocap = {c: int(self.model.body(_cube(c)).mocapid[0]) for c in CUBE_COLOURS}
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
        """Put joints somewhere at once, at rest; others go to the nearest point to 0 they have."""
        target = np.clip(0.0, self.lower, self.upper)
        for joint, value in positions.items():
            target[self.index(joint)] = value
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


def _cube(colour: str) -> str:
    return f'cube_{colour}'


def _compile(mujoco: Any, urdf_text: str, config: SceneConfig) -> Any:
    """Return the MjModel of a URDF in its surroundings."""
    try:
        spec = mujoco.MjSpec.from_string(_with_compiler_options(urdf_text))
    except ValueError as error:
        raise SceneError(f'MuJoCo cannot read the robot description: {error}') from error
    _style_robot(mujoco, spec, config)
    _add_surroundings(mujoco, spec, config)
    _add_cameras(spec, config)
    try:
        return spec.compile()
    except ValueError as error:
        raise SceneError(f'MuJoCo cannot build the scene: {error}') from error


def _with_compiler_options(urdf_text: str) -> str:
    """Ask MuJoCo's URDF reader to keep every link and the shapes that are meant to be seen."""
    options = (
        '<mujoco><compiler fusestatic="false" discardvisual="false" balanceinertia="false"/>'
        '</mujoco>'
    )
    text, found = re.subn(r'(<robot\b[^>]*>)', rf'\1{options}', urdf_text, count=1)
    if not found:
        raise SceneError('the robot description has no <robot> element')
    return text


def _style_robot(mujoco: Any, spec: Any, config: SceneConfig) -> None:
    """Drop collision shapes, compensate gravity, and add the servos."""
    known = {body.name for body in spec.bodies}
    for link in (config.tool_link, config.hand_link):
        if link not in known:
            raise SceneError(f'the robot description has no link {link!r}')
    spec.body(config.tool_link).add_site(name=TOOL_SITE, size=(0.002,) * 3, rgba=(0.0,) * 4)
    for geom in list(spec.geoms):
        if geom.contype or geom.conaffinity:
            spec.delete(geom)
    for body in spec.bodies:
        body.gravcomp = 1.0
    for equality in list(spec.equalities):  # mimic joints get a servo of their own
        spec.delete(equality)
    joints = list(spec.joints)
    for joint in joints:
        joint.armature = _gains(mujoco, joint)[2]
    for kind in ('position', 'velocity'):
        for joint in joints:
            _add_servo(mujoco, spec, joint, kind)


def _gains(mujoco: Any, joint: Any) -> tuple[float, float, float]:
    if joint.type == mujoco.mjtJoint.mjJNT_SLIDE:
        return _PRISMATIC_GAINS
    return _WRIST_GAINS if joint.actfrcrange[1] < _WRIST_EFFORT else _REVOLUTE_GAINS


def _add_servo(mujoco: Any, spec: Any, joint: Any, kind: str) -> None:
    stiffness, damping, _ = _gains(mujoco, joint)
    gain = stiffness if kind == 'position' else damping
    servo = spec.add_actuator(
        name=f'{joint.name}_{kind}', target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT
    )
    servo.gaintype = mujoco.mjtGain.mjGAIN_FIXED
    servo.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    servo.gainprm[0] = gain
    servo.biasprm[1 if kind == 'position' else 2] = -gain


def _add_surroundings(mujoco: Any, spec: Any, config: SceneConfig) -> None:
    spec.option.timestep = config.time_step_s
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.global_.offwidth = max(c.width for c in config.cameras.values())
    spec.visual.global_.offheight = max(c.height for c in config.cameras.values())
    spec.visual.map.znear = 0.01
    spec.visual.headlight.ambient = (0.35, 0.35, 0.35)
    spec.visual.headlight.diffuse = (0.25, 0.25, 0.25)
    spec.visual.headlight.specular = (0.0, 0.0, 0.0)
    spec.add_texture(
        name='sky', type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=64, height=384,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.62, 0.68, 0.74), rgb2=(0.35, 0.38, 0.42),
    )
    world = spec.worldbody
    light = world.add_light(pos=(0.6, -0.5, 2.0), dir=(-0.1, 0.3, -1.0))
    light.castshadow = False
    light.diffuse = (0.55, 0.55, 0.55)
    light.specular = (0.1, 0.1, 0.1)
    box = mujoco.mjtGeom.mjGEOM_BOX
    world.add_geom(
        name='table', type=box, pos=(0.35, 0.0, -0.02), size=(0.65, 0.6, 0.02),
        rgba=(0.72, 0.66, 0.58, 1.0), contype=0, conaffinity=0,
    )
    half = config.cube_edge / 2
    for order, (colour, rgba) in enumerate(CUBE_COLOURS.items()):
        cube = world.add_body(name=_cube(colour), mocap=True, pos=(0.5, 0.15 * (order - 1), half))
        cube.add_geom(type=box, size=(half,) * 3, rgba=rgba, contype=0, conaffinity=0)


def _add_cameras(spec: Any, config: SceneConfig) -> None:
    for name in config.cameras:
        if name == 'front':
            spec.worldbody.add_camera(
                name=name, pos=config.front_position, fovy=config.front_fovy_deg,
                quat=_look_at(config.front_position, config.front_target, (0.0, 0.0, 1.0)),
            )
        elif name == 'wrist':
            spec.body(config.hand_link).add_camera(
                name=name, pos=config.wrist_position, fovy=config.wrist_fovy_deg,
                quat=_look_at(config.wrist_position, config.wrist_target, (1.0, 0.0, 0.0)),
            )
        else:
            raise SceneError(f'unknown camera {name!r}; there are front and wrist')


def _look_at(
    position: tuple[float, ...], target: tuple[float, ...], up: tuple[float, ...]
) -> Vector:
    """Return the quaternion (w, x, y, z) of a camera that looks at a point, `up` in the image."""
    back = np.subtract(position, target)  # a camera looks along its own -z
    back = back / np.linalg.norm(back)
    right = np.cross(up, back)
    right = right / np.linalg.norm(right)
    rotation = np.column_stack((right, np.cross(back, right), back))
    quaternion = np.zeros(4)
    load_mujoco().mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion
