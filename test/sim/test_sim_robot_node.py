# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The node `sim_robot` in a process of its own, seen through its topics."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PointStamped
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_deploy.ros import qos
from vla_deploy.ros.conversions import duration_msg, time_msg, time_ns
from vla_deploy.ros.images import image_to_rgb
from vla_deploy.sim.reach import place_scene
from vla_deploy.sim.render import Renderer
from vla_deploy.sim.robot import arrange
from vla_deploy.sim.scene import CameraSize, Scene, SceneConfig
from vla_deploy_msgs.srv import ResetScene

ARM = tuple(f'fr3_joint{i}' for i in range(1, 8))
FINGERS = ('fr3_finger_joint1', 'fr3_finger_joint2')
WAIT_S = 30.0
STALE = qos.SENSOR.depth + 1  # as many messages may still wait that were sent before


class Rig:
    """A running sim_robot and a node that listens to it."""

    def __init__(self, process, context):
        self.process = process
        self.node = rclpy.create_node('test_sim_robot', context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.heard = {}
        self.listen(JointState, 'joint_states', qos.SENSOR)
        self.trajectories = self.node.create_publisher(
            JointTrajectory, 'joint_trajectory', qos.COMMAND
        )
        self.reset_client = self.node.create_client(ResetScene, 'sim_robot/reset')

    def listen(self, kind, topic, profile):
        if topic not in self.heard:
            self.heard[topic] = []
            self.node.create_subscription(kind, topic, self.heard[topic].append, profile)
        return self.heard[topic]

    def wait(self, condition, what):
        end = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end, f'{what}: not within {WAIT_S} s'
            assert self.process.poll() is None, f'sim_robot ended: {self.process.stderr.read()}'
            self.executor.spin_once(timeout_sec=0.1)

    def fresh(self, kind, topic, count=1, profile=qos.SENSOR):
        """Wait for new messages and return them."""
        messages = self.listen(kind, topic, profile)
        messages.clear()
        self.wait(lambda: len(messages) >= count, f'{count} messages on {topic}')
        return messages[:count]

    def joints(self):
        return np.array(self.fresh(JointState, 'joint_states')[0].position)

    def reset(self, seed=0, black_images=False):
        assert self.reset_client.wait_for_service(timeout_sec=WAIT_S)
        future = self.reset_client.call_async(
            ResetScene.Request(seed=seed, black_images=black_images)
        )
        self.wait(future.done, 'reset')
        self.fresh(JointState, 'joint_states', count=STALE + 1)
        return future.result()

    def move(self, target, seconds, stamp_ns=0):
        """Publish a trajectory to `target`, once the controller listens."""
        self.wait(lambda: self.trajectories.get_subscription_count() > 0, 'a subscriber')
        point = JointTrajectoryPoint(
            positions=list(target), velocities=[0.0] * 7, time_from_start=duration_msg(seconds)
        )
        msg = JointTrajectory(joint_names=list(ARM), points=[point])
        msg.header.stamp = time_msg(stamp_ns)
        self.trajectories.publish(msg)


def command(urdf_path, *parameters):
    words = [sys.executable, '-m', 'vla_deploy.nodes.sim_robot', '--ros-args']
    for parameter in (f'urdf_path:={urdf_path}', *parameters):
        words += ['-p', parameter]
    return words


@pytest.fixture(scope='module')
def domain():
    return 1 + os.getpid() % 100


@contextlib.contextmanager
def running(urdf_path, domain, *parameters):
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain)}
    process = subprocess.Popen(
        command(urdf_path, *parameters), env=environment, stderr=subprocess.PIPE, text=True
    )
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    rig = Rig(process, context)
    try:
        yield rig
    finally:
        process.terminate()
        try:
            process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
            rig.executor.shutdown()
            rig.node.destroy_node()
            context.try_shutdown()


@pytest.fixture(scope='module')
def wall(urdf_path, domain):
    with running(urdf_path, domain, 'seed:=4', 'image_width:=96', 'image_height:=64') as rig:
        yield rig


@pytest.fixture(scope='module')
def simulated(urdf_path, domain):
    parameters = (
        'clock:=simulated', 'real_time_factor:=4.0', 'joint_state_rate_hz:=50.0',
        'image_rate_hz:=10.0', 'cameras:=[front]', 'image_width:=64', 'image_height:=48',
        'interpolate_from_desired_state:=true', 'allow_nonzero_velocity_at_trajectory_end:=true',
    )  # fmt: skip
    with running(urdf_path, domain + 1, *parameters) as rig:
        yield rig


def stamps_ns(messages):
    return np.array([time_ns(m.header.stamp) for m in messages])


def test_when_it_starts_expect_the_first_placement_of_the_seed(wall):
    home = place_scene(4).home_position_rad
    assert wall.joints()[:7] == pytest.approx(home, abs=1e-6)


def test_when_joint_states_come_expect_arm_and_fingers_with_velocities(wall):
    (msg,) = wall.fresh(JointState, 'joint_states')
    assert tuple(msg.name) == ARM + FINGERS
    assert len(msg.position) == len(msg.velocity) == 9


def test_when_the_clock_is_the_wall_expect_stamps_of_now_that_only_grow(wall):
    messages = wall.fresh(JointState, 'joint_states', count=50)
    stamps = stamps_ns(messages)
    assert (np.diff(stamps) > 0).all()
    assert (np.diff(stamps) % 2_000_000 == 0).all()  # whole steps of physics
    assert abs(wall.node.get_clock().now().nanoseconds - stamps[-1]) < 10 * 10**9


@pytest.mark.parametrize('camera', ['front', 'wrist'])
def test_when_images_come_expect_rgb8_with_the_camera_s_name_and_the_time_of_a_state(wall, camera):
    topic = f'image/{camera}'
    wall.listen(Image, topic, qos.SENSOR)
    states = wall.listen(JointState, 'joint_states', qos.SENSOR)
    states.clear()
    (image,) = wall.fresh(Image, topic)
    assert (image.encoding, image.width, image.height) == ('rgb8', 96, 64)
    assert image.step == 96 * 3
    assert image.header.frame_id == camera
    assert image_to_rgb(image).mean() > 60.0
    states.clear()
    stamps = set()

    def matched():
        stamps.update(stamps_ns(states).tolist())
        return any(time_ns(m.header.stamp) in stamps for m in wall.heard[topic])

    wall.wait(matched, 'an image with the stamp of a joint state')


def test_when_reset_expect_cubes_arm_and_image_of_that_seed(wall, urdf_text):
    answer = wall.reset(seed=21)
    assert (answer.success, answer.message) == (True, '')
    assert list(answer.cube_names) == ['red', 'green', 'blue']
    placement = place_scene(21)
    for name, place in zip(answer.cube_names, answer.cube_positions, strict=True):
        cube = placement.cube(name)
        assert (place.x, place.y, place.z) == pytest.approx((cube.x_m, cube.y_m, 0.025))
    assert wall.joints()[:7] == pytest.approx(placement.home_position_rad, abs=1e-6)


def test_when_reset_expect_the_very_image_that_the_scene_gives_in_process(simulated, urdf_text):
    simulated.reset(seed=33)
    image = simulated.fresh(Image, 'image/front', count=STALE + 1)[-1]
    got = image_to_rgb(image).astype(int)
    scene = Scene(urdf_text, SceneConfig(cameras={'front': CameraSize(64, 48)}))
    arrange(scene, ARM, place_scene(33))
    with Renderer(scene) as renderer:
        wanted = renderer.render(scene.snapshot(), 'front').astype(int)
    assert np.abs(got - wanted).max() <= 2


def test_when_reset_with_black_images_expect_black_until_the_next_reset(wall):
    def mean():
        return image_to_rgb(wall.fresh(Image, 'image/front')[0]).mean()

    wall.reset(seed=1, black_images=True)
    wall.wait(lambda: mean() == 0.0, 'a black image')
    wall.reset(seed=1)
    wall.wait(lambda: mean() > 60.0, 'a bright image')


def test_when_a_trajectory_is_sent_expect_the_arm_to_go_there_and_stay(wall):
    wall.reset(seed=2)
    target = wall.joints()[:7] + 0.1
    wall.move(target, 0.3)
    wall.wait(lambda: np.allclose(wall.joints()[:7], target, atol=1e-4), 'the target')
    later = wall.fresh(JointState, 'joint_states', count=10)[-1]
    assert later.position[:7] == pytest.approx(target, abs=1e-4)


def test_when_a_trajectory_ends_in_the_past_expect_it_not_followed(wall):
    wall.reset(seed=2)
    before = wall.joints()
    now_ns = wall.node.get_clock().now().nanoseconds
    wall.move(before[:7] + 0.3, 0.3, stamp_ns=now_ns - 10**9)
    later = wall.fresh(JointState, 'joint_states', count=40)[-1]
    assert later.position == pytest.approx(before, abs=1e-6)


def test_when_it_is_reset_under_way_expect_the_trajectory_forgotten(wall):
    wall.reset(seed=2)
    wall.move(wall.joints()[:7] + 0.5, 2.0)
    moving = wall.heard['joint_states']
    wall.wait(lambda: moving and abs(moving[-1].velocity[0]) > 0.02, 'motion')
    wall.reset(seed=3)
    home = place_scene(3).home_position_rad
    later = wall.fresh(JointState, 'joint_states', count=30)[-1]
    assert later.position[:7] == pytest.approx(home, abs=1e-6)


def test_when_somebody_subscribes_late_expect_the_robot_description(wall, urdf_text):
    (msg,) = wall.fresh(String, 'robot_description', profile=qos.DESCRIPTION)
    assert msg.data == urdf_text


def test_when_the_tool_position_comes_expect_that_of_the_joints_at_its_stamp(wall, urdf_text):
    tools = wall.listen(PointStamped, 'sim_robot/tool_position', qos.SENSOR)
    states = wall.heard['joint_states']

    def pair():
        by_stamp = {time_ns(m.header.stamp): m for m in states}
        return [(t, by_stamp[s]) for t in tools if (s := time_ns(t.header.stamp)) in by_stamp]

    wall.wait(pair, 'a tool position and a joint state of one stamp')
    tool, state = pair()[-1]
    scene = Scene(urdf_text)
    scene.set_joints(dict(zip(state.name, state.position, strict=True)))
    got = (tool.point.x, tool.point.y, tool.point.z)
    assert got == pytest.approx(scene.tool_position(), abs=1e-9)
    assert tool.header.frame_id == 'fr3_link0'


def test_when_the_clock_is_simulated_expect_exact_steps_of_clock_and_states(simulated):
    clocks = simulated.fresh(Clock, '/clock', count=30, profile=qos.CLOCK)
    ticks = np.array([time_ns(m.clock) for m in clocks])
    stamps = stamps_ns(simulated.fresh(JointState, 'joint_states', count=30))
    for times in (ticks, stamps):
        steps = np.diff(times)
        assert (steps % 20_000_000 == 0).all()  # 50 Hz; a lost message doubles one
        assert np.median(steps) == 20_000_000
        assert ticks[-1] < 3600 * 10**9  # not the time of day


def test_when_the_clock_is_simulated_expect_images_at_their_rate_in_simulated_time(simulated):
    stamps = stamps_ns(simulated.fresh(Image, 'image/front', count=8))
    assert np.median(np.diff(stamps)) == 100_000_000


def test_when_only_one_camera_is_wanted_expect_no_topic_of_the_other(simulated):
    assert simulated.node.count_publishers('image/front') == 1
    assert simulated.node.count_publishers('image/wrist') == 0


def test_when_the_clock_is_simulated_expect_trajectories_at_simulated_stamps(simulated):
    simulated.reset(seed=2)
    (state,) = simulated.fresh(JointState, 'joint_states')
    target = np.array(state.position[:7]) - 0.1
    start_ns = time_ns(state.header.stamp) + 10**9
    simulated.move(target, 0.5, stamp_ns=start_ns)
    states = simulated.heard['joint_states']
    end_ns = start_ns + 7 * 10**8
    simulated.wait(lambda: stamps_ns(states[-1:]).sum() >= end_ns, 'the end in simulated time')
    assert states[-1].position[:7] == pytest.approx(target, abs=1e-4)


def test_when_the_controller_s_parameters_are_set_expect_the_node_to_pass_them_on(simulated):
    simulated.reset(seed=2)
    target = simulated.joints()[:7] + 0.05
    point = JointTrajectoryPoint(
        positions=list(target), velocities=[0.2] * 7, time_from_start=duration_msg(0.3)
    )
    simulated.wait(lambda: simulated.trajectories.get_subscription_count() > 0, 'a subscriber')
    simulated.trajectories.publish(JointTrajectory(joint_names=list(ARM), points=[point]))
    simulated.wait(
        lambda: np.allclose(simulated.joints()[:7], target, atol=1e-3),
        'the end of a trajectory that does not end at rest',
    )


def test_when_a_real_time_factor_is_given_expect_simulated_time_no_faster(urdf_path, domain):
    slow = ('clock:=simulated', 'real_time_factor:=0.2', 'cameras:=[front]')
    with running(urdf_path, domain + 2, *slow) as rig:
        clocks = rig.listen(Clock, '/clock', qos.CLOCK)
        arrivals = []
        seen = types.SimpleNamespace(count=0)

        def enough():
            if len(clocks) > seen.count:
                seen.count = len(clocks)
                arrivals.append((time.monotonic(), time_ns(clocks[-1].clock) / 1e9))
            return len(arrivals) > 40

        rig.wait(enough, '40 ticks')
        wall_s, simulated_s = np.array(arrivals[-1]) - np.array(arrivals[0])
        assert simulated_s <= 0.3 * wall_s + 0.05


@pytest.mark.parametrize(
    ('parameters', 'words'),
    [
        (['urdf_path:=/nowhere/fr3.urdf'], 'urdf_path: /nowhere/fr3.urdf: cannot be read'),
        (['urdf_path:=""'], 'urdf_path is empty'),
        (['image_widht:=64'], "'image_widht'; did you mean 'image_width'"),
        (['cameras:=[front, rear]'], "unknown camera 'rear'"),
        (['joints:=[fr3_joint1, elbow]'], "unknown joint 'elbow'"),
        (['clock:=sundial'], 'clock is'),
        (['clock:=simulated', 'use_sim_time:=true'], 'use_sim_time is off'),
    ],
)
def test_when_a_parameter_is_wrong_expect_exit_2_and_one_line_that_names_it(
    urdf_path, domain, parameters, words
):
    done = subprocess.run(
        command(urdf_path, *parameters),
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1
    assert words in errors[0]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_when_told_to_end_expect_exit_0_and_no_traceback(urdf_path, domain, number):
    with running(urdf_path, domain + 3, 'cameras:=[front]') as rig:
        rig.joints()
        rig.process.send_signal(number)
        _, errors = rig.process.communicate(timeout=WAIT_S)
        assert rig.process.returncode == 0
        assert 'Traceback' not in errors
