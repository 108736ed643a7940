# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated robot without ROS: time as an argument."""

import numpy as np
import pytest

from vla_deploy.sim.controller import (
    ControllerConfig,
    Trajectory,
    TrajectoryPoint,
    TrajectoryRefusedError,
)
from vla_deploy.sim.reach import place_scene
from vla_deploy.sim.robot import RobotConfig, SimulatedRobot
from vla_deploy.sim.scene import SceneError

S = 1_000_000_000
ARM = tuple(f'fr3_joint{i}' for i in range(1, 8))


def move(robot, change, seconds, stamp_ns=0, velocities=True):
    """Return a trajectory from the present position by `change`, at rest at both ends."""
    start = robot.joint_sample().position[:7]
    zero = np.zeros(7) if velocities else ()
    return Trajectory(
        stamp_ns,
        ARM,
        (
            TrajectoryPoint(0, start, zero),
            TrajectoryPoint(round(seconds * S), start + change, zero),
        ),
    )


def test_when_time_goes_on_expect_physics_up_to_it_and_not_beyond(make_robot):
    robot = make_robot(now_ns=5 * S)
    robot.advance(5 * S + 11_000_000)
    assert robot.time_ns == 5 * S + 10_000_000  # whole steps of 2 ms
    robot.advance(5 * S + 12_000_000)
    assert robot.time_ns == 5 * S + 12_000_000
    assert robot.joint_sample().stamp_ns == robot.time_ns
    assert robot.view().stamp_ns == robot.time_ns


def test_when_a_trajectory_comes_expect_the_arm_to_follow_it_closely(make_robot):
    robot = make_robot(now_ns=S)
    start = robot.joint_sample().position[:7]
    change = np.array([0.3, -0.2, 0.3, 0.2, -0.3, 0.2, 0.3])
    robot.accept(move(robot, change, 1.0), S)
    worst = 0.0
    for tick in range(1, 101):
        robot.advance(S + tick * 10_000_000)
        part = tick / 100
        wanted = start + change * (3 * part**2 - 2 * part**3)
        worst = max(worst, np.abs(robot.joint_sample().position[:7] - wanted).max())
    assert worst < 2e-3
    robot.advance(S + 3 * S // 2)
    sample = robot.joint_sample()
    assert sample.position[:7] == pytest.approx(start + change, abs=1e-4)
    assert sample.velocity == pytest.approx(np.zeros(9), abs=1e-3)


def test_when_physics_runs_in_other_chunks_of_time_expect_the_same_motion(make_robot):
    ends = []
    for tick_ns in (2_000_000, 10_000_000, 50_000_000):
        robot = make_robot(now_ns=S)
        robot.accept(move(robot, np.full(7, 0.2), 0.5), S)
        for now_ns in range(S, 2 * S + 1, tick_ns):
            robot.advance(now_ns)
        ends.append(robot.joint_sample().position.tobytes())
    assert ends[0] == ends[1] == ends[2]


def test_when_a_trajectory_arrives_between_ticks_expect_physics_advanced_to_its_arrival(
    make_robot,
):
    robot = make_robot(now_ns=S)
    robot.accept(move(robot, np.full(7, 0.2), 0.5), S + 7_000_000)
    assert robot.time_ns == S + 6_000_000


def test_when_a_trajectory_is_refused_expect_the_arm_to_stay(make_robot):
    robot = make_robot(now_ns=10 * S)
    with pytest.raises(TrajectoryRefusedError, match='ended'):
        robot.accept(move(robot, np.full(7, 0.2), 0.5, stamp_ns=9 * S), 10 * S)
    before = robot.joint_sample().position
    robot.advance(10 * S + S // 4)
    assert robot.joint_sample().position == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize('jump_s', [5.0, -5.0])
def test_when_the_clock_jumps_expect_the_gap_reported_and_not_simulated(make_robot, jump_s):
    robot = make_robot(now_ns=100 * S, max_lag_s=0.5)
    robot.advance(100 * S + S // 10)
    steps = robot.scene.time_s
    now_ns = robot.time_ns + round(jump_s * S)
    assert robot.advance(now_ns) == pytest.approx(jump_s)
    assert robot.time_ns == now_ns
    assert robot.scene.time_s == steps
    assert robot.advance(now_ns + S // 10) == 0.0
    assert robot.scene.time_s > steps


def test_when_the_lag_allowed_is_larger_expect_the_gap_simulated(make_robot):
    robot = make_robot(now_ns=S, max_lag_s=2.0)
    assert robot.advance(2 * S) == 0.0
    assert robot.scene.time_s == pytest.approx(1.0)


def test_when_reset_expect_arm_and_cubes_where_the_seed_says(make_robot):
    robot = make_robot(seed=0)
    robot.accept(move(robot, np.full(7, 0.2), 0.5), robot.time_ns)
    robot.advance(robot.time_ns + S // 4)
    placement = place_scene(11)
    assert robot.reset(11, black_images=False).cubes == placement.cubes
    sample = robot.joint_sample()
    assert sample.position[:7] == pytest.approx(placement.home_position_rad)
    assert sample.velocity == pytest.approx(np.zeros(9))
    for cube in placement.cubes:
        got = robot.scene.cube_positions()[cube.colour]
        assert got[:2] == pytest.approx((cube.x_m, cube.y_m))
        w, x, y, z = robot.scene.data.body(f'cube_{cube.colour}').xquat
        assert (x, y) == (0.0, 0.0)
        assert 2 * np.arctan2(z, w) == pytest.approx(cube.yaw_rad)
    robot.advance(robot.time_ns + S // 2)  # the old trajectory must not go on
    assert robot.joint_sample().position == pytest.approx(sample.position, abs=1e-9)


def test_when_reset_after_motion_expect_the_same_motion_as_from_a_fresh_start(make_robot):
    ends = []
    for used in (False, True):
        robot = make_robot(seed=5)
        if used:
            robot.accept(move(robot, np.full(7, 4.0), 0.3), robot.time_ns)  # into its stops
            robot.advance(robot.time_ns + S // 4)
            robot.reset(5, black_images=False)
        robot.accept(move(robot, np.full(7, 0.3), 0.4), robot.time_ns)
        start_ns = robot.time_ns
        robot.advance(start_ns + S // 4)
        ends.append(robot.joint_sample().position.tobytes())
    assert ends[0] == ends[1]


def test_when_reset_with_black_images_expect_views_to_say_so_until_the_next(make_robot):
    robot = make_robot()
    robot.reset(1, black_images=True)
    assert robot.view().black
    robot.reset(1, black_images=False)
    assert not robot.view().black


def test_when_seeds_differ_expect_other_placements(make_robot):
    one, two, again = (make_robot(seed=seed).joint_sample().position for seed in (1, 2, 1))
    assert np.array_equal(one, again)
    assert not np.allclose(one, two)


def test_when_the_controller_may_end_in_motion_expect_such_a_trajectory_taken(make_robot):
    moving = Trajectory(0, ARM, (TrajectoryPoint(S, np.zeros(7), np.full(7, 0.1)),))
    with pytest.raises(TrajectoryRefusedError, match='not end at rest'):
        make_robot().accept(moving, S)
    allowed = ControllerConfig(allow_nonzero_velocity_at_trajectory_end=True)
    make_robot(controller=allowed).accept(moving, S)


@pytest.mark.parametrize(
    ('joints', 'words'),
    [(ARM[:6], 'places 7 joints, the controller has 6'), (('elbow',) * 7, "joint 'elbow'")],
)
def test_when_the_joints_do_not_fit_expect_the_reason(urdf_text, joints, words):
    with pytest.raises(SceneError, match=words):
        SimulatedRobot(urdf_text, RobotConfig(joints=joints), 0, S)
