# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The reach task: where the cubes lie, where the arm starts, what counts as reached, and an expert
that does it.

Three cubes of different colour lie on the table. The instruction names one; the arm reaches it when
its tool centre point is near the point 8 cm above that cube's centre. Positions are in the robot's
base frame, metres; angles radians.

Held-out rule: the table is cut into square cells of `CELL_M`. A cell (i, j) = floor((x, y) /
CELL_M) is held out when (i + 2·j) mod 5 is 0, one cell in five, no two of them neighbours. A
training placement never has a cube's centre in a held-out cell; an evaluation placement has all
three centres in held-out cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_deploy.sim.scene import Scene, SceneConfig, Vector

COLOURS = ('red', 'green', 'blue')
JOINTS = tuple(f'fr3_joint{number}' for number in range(1, 8))
CUBE_EDGE_M = SceneConfig().cube_edge
GOAL_HEIGHT_M = 0.08
SUCCESS_M = 0.03
STRICT_M = 0.02

CELL_M = 0.04
REGION_X_M = (0.38, 0.66)
REGION_Y_M = (-0.26, 0.26)
CLEARANCE_M = 0.10
"""Least distance between two cubes' centres; the diagonal of a cube is 0.071 m, so they never
touch.
"""

HOME_POSITION_RAD = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])
HOME_SPREAD_RAD = 0.08
POSTURE_RAD = np.array([0.0, 0.1, 0.0, -2.2, 0.0, 2.3, np.pi / 4])
"""Where every goal is solved from: one fixed start makes the goal posture a smooth function of the
goal point.
"""

STEP_PERIOD_S = 0.1
STEP_LIMIT_RAD = 0.06
STEP_GAIN = 0.25

_PLACEMENT_TRIES = 10_000


@dataclass(frozen=True)
class Cube:
    """One cube on the table: its centre (m) and its turn about the vertical (rad)."""

    colour: str
    x_m: float
    y_m: float
    yaw_rad: float


@dataclass(frozen=True)
class Placement:
    """One episode's start: the arm at rest at `home_position_rad` [7], three cubes, a named one."""

    seed: int
    held_out: bool
    named: str
    home_position_rad: Vector
    cubes: tuple[Cube, ...]

    def cube(self, colour: str) -> Cube:
        """Return the cube of this colour. Raises KeyError naming a colour that is not there."""
        for cube in self.cubes:
            if cube.colour == colour:
                return cube
        raise KeyError(f'no {colour} cube in this placement: it has {", ".join(COLOURS)}')


def instruction(colour: str) -> str:
    """Return the sentence that names the cube of this colour."""
    if colour not in COLOURS:
        raise ValueError(f'colour {colour!r} is not one of {", ".join(COLOURS)}')
    return f'reach the {colour} cube'


def in_held_out_cell(x_m: float, y_m: float) -> bool:
    """Say whether a cube's centre at (x, y) lies in a cell that training never uses."""
    return (int(np.floor(x_m / CELL_M)) + 2 * int(np.floor(y_m / CELL_M))) % 5 == 0


def place_scene(seed: int, *, held_out: bool = True) -> Placement:
    """Draw one placement: the same for the same (seed, held_out), on every machine.

    The two kinds draw from different random streams, so that a training seed and an evaluation seed
    of the same number share nothing. The named colour goes round with the seed, so that any run of
    seeds is balanced.
    """
    if seed < 0:
        raise ValueError(f'seed {seed} is negative: seeds start at 0')
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, int(held_out)))))
    centres: list[Vector] = []
    for _ in range(_PLACEMENT_TRIES):
        centre = np.array([rng.uniform(*REGION_X_M), rng.uniform(*REGION_Y_M)])
        apart = all(np.linalg.norm(centre - other) >= CLEARANCE_M for other in centres)
        if apart and in_held_out_cell(centre[0], centre[1]) == held_out:
            centres.append(centre)
            if len(centres) == len(COLOURS):
                break
    else:
        raise RuntimeError(
            f'seed {seed}: no room for {len(COLOURS)} cubes in {_PLACEMENT_TRIES} tries'
        )
    yaws = rng.uniform(-np.pi / 4, np.pi / 4, len(COLOURS))
    home = HOME_POSITION_RAD + rng.uniform(
        -HOME_SPREAD_RAD, HOME_SPREAD_RAD, HOME_POSITION_RAD.size
    )
    cubes = tuple(
        Cube(colour, float(centre[0]), float(centre[1]), float(yaw))
        for colour, centre, yaw in zip(COLOURS, centres, yaws, strict=True)
    )
    return Placement(seed, held_out, COLOURS[seed % len(COLOURS)], home, cubes)


def goal_point_m(cube: Cube) -> Vector:
    """Return [3] where the tool centre point should go: 8 cm above the cube's centre."""
    return np.array([cube.x_m, cube.y_m, CUBE_EDGE_M / 2 + GOAL_HEIGHT_M])


def distance_m(tool_point_m: Vector, cube: Cube) -> float:
    """Return the distance from the tool centre point [3] to the cube's goal point."""
    return float(np.linalg.norm(np.asarray(tool_point_m) - goal_point_m(cube)))


def expert_step(position: Vector, goal: Vector) -> Vector:
    """Return where the expert is one step of `STEP_PERIOD_S` later; positions [..., 7] in rad.

    It depends on the position alone: it closes a quarter of what is left, but moves no joint more
    than `STEP_LIMIT_RAD`, all joints in proportion. So a state that the expert never visits has a
    label too.
    """
    left = goal - position
    largest = np.max(np.abs(left), axis=-1, keepdims=True)
    share = np.minimum(STEP_GAIN, STEP_LIMIT_RAD / np.maximum(largest, 1e-12))
    return position + left * share


def expert_chunk(position: Vector, goal: Vector, steps: int) -> Vector:
    """Return [..., steps, 7] the expert's next positions.

    Sample i is due (i + 1) periods after the arm was at `position`.
    """
    samples = []
    for _ in range(steps):
        position = expert_step(position, goal)
        samples.append(position)
    return np.stack(samples, axis=-2)


class GoalSolver:
    """Joint goals by damped least squares (Nakamura and Hanafusa, 1986) in a scene of its own.

    The hand points straight down with a fixed yaw; the motion left over by those six constraints is
    drawn toward `POSTURE_RAD`, so that the goal is unique and changes smoothly with the point.
    """

    _ITERATIONS = 25
    _DAMPING = 0.02
    _POSTURE_GAIN = 0.5
    _TOLERANCE_M = 1e-4

    def __init__(self, scene: Scene) -> None:
        """Solve in `scene`, whose arm it moves. Raises SceneError when it lacks a joint."""
        self._scene = scene
        self._arm = scene.indices(JOINTS)

    def tool_point_m(self, position: Vector) -> Vector:
        """Return [3] where the tool centre point is at joint positions [7] (rad)."""
        self._scene.data.qpos[self._arm] = position
        return self._scene.tool_position()

    def solve(self, point_m: Vector) -> Vector:
        """Return joint positions [7] (rad) with the tool at `point_m` [3].

        Raises ValueError when the point is out of reach or the goal is outside the joints' range.
        """
        position = POSTURE_RAD.copy()
        for _ in range(self._ITERATIONS):
            left = point_m - self.tool_point_m(position)
            turn = _turn_to_down(self._scene.tool_rotation())
            jacobian = self._scene.tool_jacobian()[:, self._arm]
            damped = jacobian @ jacobian.T + self._DAMPING**2 * np.eye(6)
            free = np.eye(position.size) - np.linalg.pinv(jacobian) @ jacobian
            task = jacobian.T @ np.linalg.solve(damped, np.concatenate((left, turn)))
            position = position + task + self._POSTURE_GAIN * free @ (POSTURE_RAD - position)
        left_m = float(np.linalg.norm(point_m - self.tool_point_m(position)))
        if left_m > self._TOLERANCE_M:
            raise ValueError(f'point {point_m} is out of reach: {left_m:.4f} m are left')
        lower, upper = self._scene.lower[self._arm], self._scene.upper[self._arm]
        for name, value, low, high in zip(JOINTS, position, lower, upper, strict=True):
            if not low <= value <= high:
                raise ValueError(f'point {point_m} needs {name} at {value:.3f} rad, out of range')
        return position


_DOWN = np.diag([1.0, -1.0, -1.0])
"""The tool's axes in the base frame with the hand straight down: z down, x forward."""


def _turn_to_down(rotation: Vector) -> Vector:
    """Return [3] the turn from `rotation` [3, 3] to straight down about the base axes (rad)."""
    return 0.5 * np.asarray(np.sum(np.cross(rotation.T, _DOWN.T), axis=0))
