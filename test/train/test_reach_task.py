# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Placement, held-out cells, the goal solver and the expert of the reach task."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.sim import reach
from vla_deploy.sim.scene import Scene

SEEDS = st.integers(min_value=0, max_value=2**31)


@pytest.fixture(scope='module')
def solver(urdf_text):
    return reach.GoalSolver(Scene(urdf_text))


@given(seed=SEEDS, held_out=st.booleans())
@settings(max_examples=80, deadline=None)
def test_when_a_scene_is_placed_expect_cubes_apart_and_inside_the_region(seed, held_out):
    cubes = reach.place_scene(seed, held_out=held_out).cubes
    centres = np.array([(cube.x_m, cube.y_m) for cube in cubes])
    assert [cube.colour for cube in cubes] == list(reach.COLOURS)
    for first in range(len(cubes)):
        for second in range(first):
            gap = np.linalg.norm(centres[first] - centres[second])
            assert gap >= reach.CLEARANCE_M > np.sqrt(2) * reach.CUBE_EDGE_M
    assert (centres >= (reach.REGION_X_M[0], reach.REGION_Y_M[0])).all()
    assert (centres <= (reach.REGION_X_M[1], reach.REGION_Y_M[1])).all()


@given(seed=SEEDS)
@settings(max_examples=80, deadline=None)
def test_when_scenes_are_placed_expect_training_and_evaluation_in_different_cells(seed):
    def cells(held_out):
        cubes = reach.place_scene(seed, held_out=held_out).cubes
        return [reach.in_held_out_cell(cube.x_m, cube.y_m) for cube in cubes]

    assert not any(cells(held_out=False))
    assert all(cells(held_out=True))


@given(i=st.integers(-40, 40), j=st.integers(-40, 40))
@settings(max_examples=60, deadline=None)
def test_when_a_cell_is_held_out_expect_its_neighbours_not(i, j):
    def held_out(row, column):
        return reach.in_held_out_cell((row + 0.5) * reach.CELL_M, (column + 0.5) * reach.CELL_M)

    around = [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1) if di or dj]
    if held_out(i, j):
        assert not any(held_out(*cell) for cell in around)


def test_when_a_seed_is_used_twice_expect_the_same_placement():
    first, second = reach.place_scene(17), reach.place_scene(17)
    assert first.cubes == second.cubes
    assert (first.home_position_rad == second.home_position_rad).all()


def test_when_seeds_follow_one_another_expect_every_colour_named_equally():
    named = [reach.place_scene(seed).named for seed in range(30)]
    assert {colour: named.count(colour) for colour in reach.COLOURS} == dict.fromkeys(
        reach.COLOURS, 10
    )


def test_when_the_seed_is_negative_expect_an_error():
    with pytest.raises(ValueError, match='seed -1'):
        reach.place_scene(-1)


def test_when_a_colour_is_not_there_expect_an_error_that_names_it():
    with pytest.raises(KeyError, match='no pink cube'):
        reach.place_scene(0).cube('pink')
    with pytest.raises(ValueError, match="'pink'"):
        reach.instruction('pink')


def test_when_a_goal_is_solved_expect_the_tool_there_and_the_hand_down(urdf_text):
    scene = Scene(urdf_text)
    solver = reach.GoalSolver(scene)
    for cube in reach.place_scene(4).cubes:
        point = reach.goal_point_m(cube)
        assert np.linalg.norm(solver.tool_point_m(solver.solve(point)) - point) < 1e-6
        assert np.abs(scene.tool_rotation() - np.diag([1, -1, -1])).max() < 1e-6


def test_when_the_goal_moves_a_little_expect_the_posture_to_follow_smoothly(solver):
    line = [np.array([x, -0.2, 0.105]) for x in np.arange(0.40, 0.65, 0.005)]
    postures = [solver.solve(point) for point in line]
    assert max(np.abs(b - a).max() for a, b in pairwise(postures)) < 0.03


def test_when_the_goal_is_out_of_reach_expect_an_error(solver):
    with pytest.raises(ValueError, match='out of reach'):
        solver.solve(np.array([1.5, 0.0, 0.1]))


@given(
    position=st.lists(st.floats(-2.5, 2.5), min_size=7, max_size=7),
    goal=st.lists(st.floats(-2.5, 2.5), min_size=7, max_size=7),
)
@settings(max_examples=60, deadline=None)
def test_when_the_expert_steps_expect_small_steps_that_a_robot_can_start_from_rest(position, goal):
    start, end = np.array(position), np.array(goal)
    way = np.vstack((start, start, reach.expert_chunk(start, end, 16)))
    steps = np.diff(way, axis=0)
    assert np.abs(steps).max() <= reach.STEP_LIMIT_RAD * (1 + 1e-9)
    acceleration = np.abs(np.diff(steps, axis=0)).max() / reach.STEP_PERIOD_S**2
    assert acceleration <= 0.8 * 10.0
    assert (np.abs(end - way[-1]) <= np.abs(end - start) + 1e-12).all()


def test_when_the_expert_drives_the_simulated_arm_expect_every_goal_reached(urdf_text, solver):
    scene = Scene(urdf_text)
    arm = scene.indices(reach.JOINTS)
    reached = 0
    for seed in range(100):
        placement = reach.place_scene(seed)
        cube = placement.cube(placement.named)
        goal = solver.solve(reach.goal_point_m(cube))
        scene.set_joints(dict(zip(reach.JOINTS, placement.home_position_rad, strict=True)))
        command = scene.positions
        for _ in range(45):
            command[arm] = reach.expert_step(scene.positions[arm], goal)
            scene.command(command)
            scene.step_for(reach.STEP_PERIOD_S)
        reached += reach.distance_m(scene.tool_position(), cube) <= reach.SUCCESS_M
    assert reached >= 99
