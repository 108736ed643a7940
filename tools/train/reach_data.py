# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Records the demonstrations of the reach task in the simulation: images, joint states and labels.

One scene gives `STATES_PER_SCENE` images. Each state lies on the expert's way to one of the cubes
or near it, and each has the joint goals of all three cubes: the expert depends on the position
alone, so one image serves three instructions.
"""

from __future__ import annotations

import atexit
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reach_checkpoint import CAMERA, CAMERA_SIDE_PX

from vla_deploy.sim import reach
from vla_deploy.sim.render import Renderer
from vla_deploy.sim.scene import CUBE_COLOURS, CameraSize, Scene, SceneConfig

STATES_PER_SCENE = 2
AT_START_SHARE = 0.12
AT_GOAL_SHARE = 0.2
STATE_NOISE_RAD = (0.0, 0.03, 0.08)
EXPERT_STEPS = 40

CAMERA_JITTER_M = 0.0015
CAMERA_TURN_RAD = 0.0015
LIGHT_SPREAD = 0.2
COLOUR_SPREAD = 0.15
_BLOCK_SCENES = 50


@dataclass(frozen=True)
class Dataset:
    """Demonstrations, all arrays with one row an image.

    images uint8 [n, 128, 128, 3], after the policy's resize; position float32 [n, 7] rad;
    goal float32 [n, 3, 7] rad and centre float32 [n, 3, 2] m and pixel float32 [n, 3, 2] (column,
    row; 0 to 1 across the image) of the red, green and blue cube; scene int64 [n], the seed.
    """

    images: NDArray[np.uint8]
    position: NDArray[np.float32]
    goal: NDArray[np.float32]
    centre: NDArray[np.float32]
    pixel: NDArray[np.float32]
    scene: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write everything into one .npz file."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Dataset:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Recording:
    """What to record: scenes first_scene, first_scene + 1, …; `vary` changes light, colours and
    camera from scene to scene."""

    urdf: str
    first_scene: int
    scenes: int
    held_out: bool
    vary: bool


def shrink_exactly(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the image [256, 256, 3] at half its side, in grey levels: the mean of each 2 × 2
    block.

    This is what the policy's bilinear resize does at that ratio.
    """
    side = CAMERA_SIDE_PX // 2
    blocks = image.reshape(side, 2, side, 2, 3).astype(np.float32)
    return blocks.sum(axis=(1, 3)) / 4


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `shrink_exactly` in whole grey levels, which keeps the recording small."""
    return (shrink_exactly(image) + 0.5).astype(np.uint8)


def record(
    recording: Recording, workers: int, report: Callable[[int, int], None] | None = None
) -> Dataset:
    """Record all scenes with `workers` processes; `report(done, all)` is told of the progress."""
    blocks = [
        (recording, start, min(start + _BLOCK_SCENES, recording.scenes))
        for start in range(0, recording.scenes, _BLOCK_SCENES)
    ]
    parts: list[dict[str, NDArray[Any]]] = []
    if workers == 1:
        for block in blocks:
            parts.append(_record_block(block))
            if report:
                report(len(parts), len(blocks))
    else:
        with multiprocessing.get_context('spawn').Pool(workers) as pool:
            for part in pool.imap(_record_block, blocks):
                parts.append(part)
                if report:
                    report(len(parts), len(blocks))
    return Dataset(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _record_block(block: tuple[Recording, int, int]) -> dict[str, NDArray[Any]]:
    recording, start, end = block
    stage = _stage(recording.urdf)
    rows: list[dict[str, Any]] = []
    for scene in range(start, end):
        rows.extend(stage.record_scene(recording, recording.first_scene + scene))
    types = {'images': np.uint8, 'scene': np.int64}
    return {
        name: np.stack([row[name] for row in rows]).astype(types.get(name, np.float32))
        for name in rows[0]
    }


_stages: dict[str, _Stage] = {}


def _stage(urdf: str) -> _Stage:
    """Return this process's stage: its OpenGL context is made once."""
    if urdf not in _stages:
        _stages[urdf] = _Stage(urdf)
        atexit.register(_stages[urdf].close)
    return _stages[urdf]


class _Stage:
    """A scene with the front camera alone, a renderer, and a solver with a scene of its own."""

    def __init__(self, urdf: str) -> None:
        size = CameraSize(CAMERA_SIDE_PX, CAMERA_SIDE_PX)
        self._scene = Scene(urdf, SceneConfig(cameras={CAMERA: size}))
        self._renderer = Renderer(self._scene)
        self._solver = reach.GoalSolver(Scene(urdf, SceneConfig(cameras={CAMERA: size})))
        model = self._scene.model
        self._plain = {
            name: getattr(model, name).copy()
            for name in ('cam_pos', 'cam_quat', 'light_diffuse', 'light_pos', 'geom_rgba')
        }

    def close(self) -> None:
        """Free the OpenGL context, which the interpreter's end does too late."""
        self._renderer.close()

    def record_scene(self, recording: Recording, seed: int) -> list[dict[str, Any]]:
        """Return one row for each state of this scene."""
        placement = reach.place_scene(seed, held_out=recording.held_out)
        rng = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence((seed, int(recording.held_out), 1)))
        )
        self._restore()
        if recording.vary:
            self._vary(rng)
        self._scene.place_cubes(
            {cube.colour: (cube.x_m, cube.y_m) for cube in placement.cubes},
            {cube.colour: cube.yaw_rad for cube in placement.cubes},
        )
        points = [reach.goal_point_m(cube) for cube in placement.cubes]
        goal = np.stack([self._solver.solve(point) for point in points])
        centre = np.array([(cube.x_m, cube.y_m) for cube in placement.cubes])
        rows = []
        for position in draw_states(rng, placement.home_position_rad, goal):
            self._scene.set_joints(dict(zip(reach.JOINTS, position, strict=True)))
            image = self._renderer.render(self._scene.snapshot(), CAMERA)
            rows.append(
                {
                    'images': shrink(image),
                    'position': position,
                    'goal': goal,
                    'centre': centre,
                    'pixel': self._project(self._scene.cube_positions()),
                    'scene': seed,
                }
            )
        return rows

    def _restore(self) -> None:
        for name, value in self._plain.items():
            getattr(self._scene.model, name)[:] = value

    def _vary(self, rng: np.random.Generator) -> None:
        """Change camera, light and colours a little, as another day would."""
        model = self._scene.model
        camera = model.camera(CAMERA).id
        model.cam_pos[camera] += rng.normal(0, CAMERA_JITTER_M, 3)
        turn = np.concatenate(([1.0], rng.normal(0, CAMERA_TURN_RAD / 2, 3)))
        model.cam_quat[camera] = _multiply(model.cam_quat[camera], turn / np.linalg.norm(turn))
        model.light_diffuse[:] *= rng.uniform(1 - LIGHT_SPREAD, 1 + LIGHT_SPREAD)
        model.light_pos[:, :2] += rng.uniform(-0.3, 0.3, 2)
        for geom in range(model.ngeom):
            body = model.body(model.geom_bodyid[geom]).name
            cube = body in {f'cube_{colour}' for colour in CUBE_COLOURS}
            spread = COLOUR_SPREAD if cube else COLOUR_SPREAD / 2
            scale = rng.uniform(1 - spread, 1 + spread, 3 if cube else 1)
            model.geom_rgba[geom, :3] = np.clip(model.geom_rgba[geom, :3] * scale, 0.0, 1.0)

    def _project(self, cubes: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return [3, 2] where the cubes' centres are in the image: column and row, 0 to 1."""
        camera = self._scene.data.camera(CAMERA)
        axes = camera.xmat.reshape(3, 3)
        fovy = np.radians(self._scene.model.camera(CAMERA).fovy[0])
        points = np.stack([(cubes[c] - camera.xpos) @ axes for c in reach.COLOURS])
        half = -points[:, 2:] * np.tan(fovy / 2)
        return 0.5 + 0.5 * points[:, :2] / half * np.array([1.0, -1.0])


def draw_states(
    rng: np.random.Generator, home: NDArray[np.float64], goal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [STATES_PER_SCENE, 7] states on and around the expert's ways from `home` to `goal`."""
    states = []
    for _ in range(STATES_PER_SCENE):
        end = goal[rng.integers(len(goal))]
        kind = rng.uniform()
        if kind < AT_START_SHARE:
            position = home
        elif kind < AT_START_SHARE + AT_GOAL_SHARE:
            position = end
        else:
            way = reach.expert_chunk(home, end, EXPERT_STEPS)
            position = way[rng.integers(EXPERT_STEPS)]
        states.append(position + rng.normal(0, rng.choice(STATE_NOISE_RAD), position.shape))
    return np.stack(states)


def _multiply(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the product of two quaternions (w, x, y, z)."""
    w, vector = first[0], first[1:]
    other_w, other = second[0], second[1:]
    return np.concatenate(
        (
            [w * other_w - vector @ other],
            w * other + other_w * vector + np.cross(vector, other),
        )
    )
