# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The MuJoCo model of a robot description in its surroundings.

Nothing collides: cubes are drawn, not touched. Joints are driven by position servos with velocity
feed-forward, limited by the effort of the URDF, and gravity is compensated.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim.mujoco_loader import load_mujoco
from vla_deploy.sim.scene_config import CUBE_COLOURS, CameraMount, SceneConfig, SceneError

TOOL_SITE = 'tcp'
# Servo gains for each joint kind and the reflected inertia of motor and gear. Chosen stiff: the
# position error at 10 rad/s2 stays below 3 mrad. SI units.
_REVOLUTE_GAINS = (6000.0, 300.0, 0.2)
_WRIST_GAINS = (2500.0, 90.0, 0.1)
_SERVO_GAINS = (400.0, 16.0, 0.02)
_PRISMATIC_GAINS = (4000.0, 80.0, 0.1)
_WRIST_EFFORT = 20.0  # a turning joint with less effort than this [Nm] gets the wrist gains
_SERVO_EFFORT = 6.0  # and with less than this, those of a hobby servo


def cube_body(colour: str) -> str:
    """Return the name of a cube's body."""
    return f'cube_{colour}'


def compile_scene(mujoco: Any, urdf_text: str, config: SceneConfig) -> Any:
    """Return the MjModel of a URDF in its surroundings; raises SceneError."""
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
    _link(spec, config.tool_link).add_site(name=TOOL_SITE, size=(0.002,) * 3, rgba=(0.0,) * 4)
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


def _link(spec: Any, name: str) -> Any:
    """Return the body of a link; raises SceneError when there is none."""
    if name not in {body.name for body in spec.bodies}:
        raise SceneError(f'the robot description has no link {name!r}')
    return spec.body(name)


def _gains(mujoco: Any, joint: Any) -> tuple[float, float, float]:
    if joint.type == mujoco.mjtJoint.mjJNT_SLIDE:
        return _PRISMATIC_GAINS
    effort = joint.actfrcrange[1]
    if effort < _SERVO_EFFORT:
        return _SERVO_GAINS
    return _WRIST_GAINS if effort < _WRIST_EFFORT else _REVOLUTE_GAINS


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
        name='table', type=box, pos=(*config.table_centre, -0.02),
        size=(config.table_size[0] / 2, config.table_size[1] / 2, 0.02),
        rgba=(0.72, 0.66, 0.58, 1.0), contype=0, conaffinity=0,
    )
    half = config.cube_edge / 2
    for order, (colour, rgba) in enumerate(CUBE_COLOURS.items()):
        cube = world.add_body(
            name=cube_body(colour), mocap=True, pos=(0.5, 0.15 * (order - 1), half)
        )
        cube.add_geom(type=box, size=(half,) * 3, rgba=rgba, contype=0, conaffinity=0)


def _add_cameras(spec: Any, config: SceneConfig) -> None:
    for name in config.cameras:
        if name not in config.mounts:
            raise SceneError(f'unknown camera {name!r}; there are {", ".join(config.mounts)}')
        mount = config.mounts[name]
        body = _link(spec, mount.link) if mount.link else spec.worldbody
        body.add_camera(
            name=name, pos=mount.position, fovy=mount.fovy_deg, quat=_look_at(name, mount)
        )


def _look_at(name: str, mount: CameraMount) -> NDArray[np.float64]:
    """Return the quaternion (w, x, y, z) of a camera that looks at its target."""
    back = np.subtract(mount.position, mount.target)  # a camera looks along its own -z
    right = np.cross(mount.up, back)
    if np.linalg.norm(right) < 1e-6:
        raise SceneError(f'camera {name!r} looks along its own up direction, or nowhere')
    back = back / np.linalg.norm(back)
    right = np.cross(mount.up, back)
    right = right / np.linalg.norm(right)
    rotation = np.column_stack((right, np.cross(back, right), back))
    quaternion = np.zeros(4)
    load_mujoco().mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion
