# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Draw camera images offscreen.

A Renderer owns an OpenGL context, which belongs to the thread that made it: make, use and close
it in one thread. It draws from a SceneState, so physics may go on meanwhile.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim.mujoco_loader import load_mujoco
from vla_deploy.sim.scene import Scene, SceneState

Image = NDArray[np.uint8]


class RenderError(RuntimeError):
    """No offscreen OpenGL context can be made; the message says what to install or to set."""


class Renderer:
    """Offscreen camera images of one scene."""

    def __init__(self, scene: Scene) -> None:
        """Make the OpenGL context in the calling thread; raises RenderError."""
        self._mujoco = mujoco = load_mujoco()
        self._model = scene.model
        self._sizes = dict(scene.config.cameras)
        self._data = mujoco.MjData(scene.model)
        width = max(size.width for size in self._sizes.values())
        height = max(size.height for size in self._sizes.values())
        self._gl, self._context = _make_context(mujoco, scene.model, width, height)
        self._visual = mujoco.MjvScene(scene.model, maxgeom=200)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._visual.flags[flag] = 0
        self._option = mujoco.MjvOption()
        self._cameras = {name: _fixed_camera(mujoco, scene.model, name) for name in self._sizes}

    def render(self, state: SceneState, camera: str) -> Image:
        """Return one image, uint8 [height, width, 3], RGB, top row first."""
        if camera not in self._cameras:
            raise KeyError(f'unknown camera {camera!r}; there are {", ".join(self._cameras)}')
        mujoco, size = self._mujoco, self._sizes[camera]
        self._data.qpos[:] = state.joint_positions
        self._data.mocap_pos[:] = state.cube_positions
        self._data.mocap_quat[:] = state.cube_quaternions
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._cameras[camera],
            mujoco.mjtCatBit.mjCAT_ALL, self._visual,
        )
        view = mujoco.MjrRect(0, 0, size.width, size.height)
        image = np.empty((size.height, size.width, 3), dtype=np.uint8)
        mujoco.mjr_render(view, self._visual, self._context)
        mujoco.mjr_readPixels(image, None, view, self._context)
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Free the OpenGL context; call it in the thread that made the renderer."""
        if self._gl is not None:
            self._context.free()
            self._gl.free()
            self._gl = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make_context(mujoco: Any, model: Any, width: int, height: int) -> tuple[Any, Any]:
    backend = os.environ.get('MUJOCO_GL', '')
    advice = (
        f'offscreen rendering failed with MUJOCO_GL={backend}; install its libraries '
        '(apt-get install libegl1 libgl1-mesa-dri, or libosmesa6) or set MUJOCO_GL to the other '
        'of egl and osmesa'
    )
    if not hasattr(mujoco, 'GLContext'):
        raise RenderError(advice)
    try:
        gl = mujoco.GLContext(width, height)
        gl.make_current()
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    except Exception as error:  # its type is the GL library's own
        raise RenderError(f'{advice}: {error}') from error
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    if context.currentBuffer != mujoco.mjtFramebuffer.mjFB_OFFSCREEN:
        raise RenderError(f'{advice}: the context has no offscreen buffer')
    return gl, context


def _fixed_camera(mujoco: Any, model: Any, name: str) -> Any:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = model.camera(name).id
    return camera
