# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Every robot in simulation, without ROS: it stands, it follows, it is seen."""

import dataclasses

import numpy as np
import pytest
from robot_figures import ROBOTS, limits, parameters, simulation, urdf_text

from vla_deploy.sim.controller import Trajectory, TrajectoryPoint, TrajectoryRefusedError
from vla_deploy.sim.reach import place_scene
from vla_deploy.sim.render import Renderer
from vla_deploy.sim.robot import Layout, SimulatedRobot
from vla_deploy.sim.scene import SceneError

S = 1_000_000_000
ARMS = tuple(robot for robot in ROBOTS if robot != 'quadcopter')
SMALL = {'image_width': 48, 'image_height': 32}


def simulated(robot, seed=3, **changes):
    return SimulatedRobot(
        urdf_text(robot), simulation(robot, **{**SMALL, **changes}).robot(), seed, S
    )


def positions(robot, names):
    sample = robot.joint_sample()
    by_name = dict(zip(sample.names, sample.position, strict=True))
    return np.array([by_name[name] for name in names])


@pytest.mark.parametrize('robot', ROBOTS)
def test_when_nothing_is_commanded_expect_the_robot_to_stay_at_its_home(robot):
    made = simulated(robot)
    names = parameters(robot, 'guard.yaml')['joint_names']
    home = made.reset(3, black_images=False).home_position_rad
    made.advance(S + S // 2)
    assert positions(made, names) == pytest.approx(home, abs=1e-9)


@pytest.mark.parametrize('robot', ARMS)
def test_when_the_limits_are_used_expect_the_servos_to_follow_closely(robot):
    made, bounds = simulated(robot), limits(robot)
    start = positions(made, bounds.names)
    # A cubic from rest to rest in a second uses 6 times its distance in acceleration.
    room = np.where(bounds.has_position, (bounds.upper - bounds.lower) / 4, 1.0)
    change = np.minimum(0.9 * bounds.acceleration / 6, room)
    change = np.where(start + change > bounds.upper, -change, change)
    rest = np.zeros(len(start))
    made.accept(
        Trajectory(0, bounds.names, (TrajectoryPoint(0, start, rest),
                                     TrajectoryPoint(S, start + change, rest))), S
    )  # fmt: skip
    worst = 0.0
    for tick in range(1, 101):
        made.advance(S + tick * 10_000_000)
        part = tick / 100
        wanted = start + change * (3 * part**2 - 2 * part**3)
        worst = max(worst, np.abs(positions(made, bounds.names) - wanted).max())
    assert worst < 0.05  # a quarter of what the guard calls a tracking error
    made.advance(2 * S + S // 2)
    assert positions(made, bounds.names) == pytest.approx(start + change, abs=1e-3)


@pytest.mark.parametrize('robot', ROBOTS)
def test_when_the_cameras_look_expect_each_to_see_more_than_one_colour(robot):
    made = simulated(robot)
    assert made.scene.camera_names
    with Renderer(made.scene) as renderer:
        for camera in made.scene.camera_names:
            image = renderer.render(made.scene.snapshot(), camera)
            assert image.shape == (32, 48, 3)
            assert image.reshape(-1, 3).std(axis=0).max() > 2.0, camera


@pytest.mark.parametrize('robot', [r for r in ARMS if r != 'franka'])
def test_when_the_first_camera_looks_expect_every_cube_in_sight(robot):
    made = simulated(robot, image_width=192, image_height=144)
    with Renderer(made.scene) as renderer:
        image = renderer.render(made.scene.snapshot(), made.scene.camera_names[0]).astype(int)
    for channel in range(3):
        others = np.delete(image, channel, axis=2).max(axis=2)
        assert (image[..., channel] > 1.8 * others + 20).sum() > 5, channel


@pytest.mark.parametrize(
    ('robot', 'first'), [('ur3', 'elbow_joint'), ('ur5', 'elbow_joint'), ('so101', 'gripper')]
)
def test_when_states_are_published_expect_the_order_of_the_real_driver(robot, first):
    names = simulated(robot).joint_sample().names
    assert names[0] == first
    assert names != tuple(parameters(robot, 'guard.yaml')['joint_names'])


def test_when_an_arm_of_aloha_is_measured_expect_nine_joints():
    names = simulated('aloha').joint_sample().names
    assert len(names) == 18
    assert sum(name.startswith('follower_left/') for name in names) == 9


def test_when_one_finger_moves_expect_the_other_to_mirror_it():
    made = simulated('aloha')
    names = parameters('aloha', 'guard.yaml')['joint_names']
    target = positions(made, names)
    target[names.index('follower_left/left_finger')] = 0.05
    made.accept(Trajectory(0, tuple(names), (TrajectoryPoint(S // 2, target),)), S)
    fingers = ('follower_left/left_finger', 'follower_left/right_finger')
    for tick in range(1, 21):
        made.advance(S + tick * 50_000_000)
        left, right = positions(made, fingers)
        assert right == pytest.approx(-left, abs=1e-3)
    assert left == pytest.approx(0.05, abs=1e-4)


def test_when_a_joint_that_follows_is_to_be_driven_expect_it_refused():
    with pytest.raises(SceneError, match="'fer_finger_joint2' follows 'fer_finger_joint1'"):
        simulated('fer', joints=['fer_finger_joint2'], home_position=[0.0])


def test_when_the_home_is_out_of_range_expect_the_joint_named():
    home = [0.0, -0.1, -1.6, 0.6, 0.0, 0.2]
    with pytest.raises(SceneError, match="'shoulder_lift' cannot start at -0.1"):
        simulated('so100', home_position=home)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'tool_link': 'claw'}, "no link 'claw'"),
        ({'mount_links': ['', 'claw']}, "no link 'claw'"),
        ({'mount_targets': [0.0, 0.0, 0.0, 0.0, 0.0, 0.2], 'mount_positions': [0.0] * 6},
         "camera 'front' looks"),
        ({'joint_state_order': ['claw']}, "unknown joint 'claw'"),
    ],
)  # fmt: skip
def test_when_the_surroundings_do_not_fit_expect_the_reason(changes, words):
    with pytest.raises(SceneError, match=words):
        simulated('ur5', **changes)


def test_when_cubes_are_laid_out_anew_expect_them_turned_scaled_and_moved():
    placement = place_scene(3)
    layout = Layout(home=(0.1,), cube_origin=(1.0, 2.0), cube_scale=0.5, cube_yaw_rad=np.pi / 2)
    moved = layout.apply(placement)
    assert moved.home_position_rad == pytest.approx((0.1,))
    for before, after in zip(placement.cubes, moved.cubes, strict=True):
        assert (after.x_m, after.y_m) == pytest.approx(
            (1.0 - 0.5 * before.y_m, 2.0 + 0.5 * before.x_m)
        )
        assert after.yaw_rad == pytest.approx(before.yaw_rad + np.pi / 2)


def test_when_nothing_is_laid_out_anew_expect_the_very_placement_of_the_task():
    placement = place_scene(3)
    same = Layout().apply(placement)
    assert same.cubes == placement.cubes
    assert same.home_position_rad is placement.home_position_rad


def test_when_a_velocity_is_commanded_expect_that_velocity_until_it_times_out():
    made = simulated('quadcopter')
    names = ('base_x', 'base_y', 'base_z', 'base_yaw')
    made.accept_velocity([0.4, 0.0, 0.0, 0.5], S)
    for tick in range(1, 51):
        made.advance(S + tick * 20_000_000)
    # 0.5 s of the command's life, as velocity_timeout_s says, then rest.
    assert positions(made, names) == pytest.approx((0.2, 0.0, 1.0, 0.25), abs=5e-3)
    before = positions(made, names)
    made.advance(3 * S)
    assert positions(made, names) == pytest.approx(before, abs=1e-3)


def test_when_zeros_are_commanded_expect_it_to_stand_at_once():
    made = simulated('quadcopter')
    made.accept_velocity([0.4, 0.0, 0.0, 0.0], S)
    made.advance(S + S // 5)
    made.accept_velocity([0.0] * 4, S + S // 5)
    made.advance(S + S // 2)
    sample = made.joint_sample()
    assert sample.velocity == pytest.approx(np.zeros(len(sample.names)), abs=1e-3)
    assert sample.position[0] == pytest.approx(0.08, abs=2e-3)


@pytest.mark.parametrize(
    ('velocity', 'words'),
    [([0.1] * 3, '3 velocities for 4 joints'), ([0.0, np.nan, 0.0, 0.0], 'velocity of base_y')],
)
def test_when_velocities_are_bad_expect_a_refusal_and_the_old_ones_kept(velocity, words):
    made = simulated('quadcopter')
    made.accept_velocity([0.4, 0.0, 0.0, 0.0], S)
    with pytest.raises(TrajectoryRefusedError, match=words):
        made.accept_velocity(velocity, S + S // 10)
    made.advance(S + 3 * S // 10)
    assert made.joint_sample().velocity[0] == pytest.approx(0.4, abs=0.02)


def test_when_the_time_limit_of_velocities_changes_expect_it_kept():
    config = dataclasses.replace(simulation('quadcopter', **SMALL), velocity_timeout_s=0.1)
    made = SimulatedRobot(urdf_text('quadcopter'), config.robot(), 3, S)
    made.accept_velocity([0.4, 0.0, 0.0, 0.0], S)
    made.advance(S + S // 2)
    assert made.joint_sample().position[0] == pytest.approx(0.04, abs=2e-3)
