# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated robot as a node: joint states and images out, trajectories or velocities in.

Its images are drawn and published by a process of their own, sim_cameras, so that neither a slow
image nor who hears it holds up a joint state.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from geometry_msgs.msg import Point, PointStamped
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.core.parameter import ParameterError
from vla_deploy.files import FileError, read_text
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import NS_PER_S, time_msg
from vla_deploy.ros.lifecycle import EXIT_FAILED, ConfigureError, run_node
from vla_deploy.ros.parameters import declare_parameters, read_config
from vla_deploy.ros.sim_conversions import joint_state_msg, trajectory_from_msg
from vla_deploy.ros.transport import CONTROL, IMAGES, environment_with
from vla_deploy.sim.config import SimRobotConfig
from vla_deploy.sim.controller import TrajectoryRefusedError
from vla_deploy.sim.image_process import CameraJob, ImageProcess
from vla_deploy.sim.mujoco_loader import SimulatorMissingError
from vla_deploy.sim.render import RenderError
from vla_deploy.sim.robot import RobotConfig, SimulatedRobot
from vla_deploy.sim.scene import SceneError
from vla_deploy_msgs.srv import ResetScene

# Time zero means "now" in a trajectory's stamp, so simulated time begins later.
_SIMULATED_START_NS = NS_PER_S


class SimRobotNode(Node):
    """A robot with its controller and cameras, simulated; see SimRobotConfig."""

    def __init__(self) -> None:
        """Build the robot; raises ConfigureError or ParameterError with one line."""
        super().__init__('sim_robot')
        self.exit_code: int | None = None
        self._closing = ExitStack()
        try:
            self._build()
        except (ConfigureError, ParameterError):
            self.destroy_node()  # with use_sim_time, one left undestroyed hangs at exit
            raise

    def _build(self) -> None:
        declare_parameters(self, SimRobotConfig)
        self._config = read_config(self, SimRobotConfig)
        self._simulated = self._config.clock == 'simulated'
        if self._simulated and self.get_parameter('use_sim_time').value:
            raise ConfigureError('clock is simulated: this node makes /clock, use_sim_time is off')
        description = _description(self._config.urdf_path)
        start_ns = _SIMULATED_START_NS if self._simulated else self._wall_ns()
        self._image_due_ns = start_ns
        robot = self._config.robot()
        try:
            self._images = self._start_cameras(description, robot)
            self._closing.callback(self._images.stop)
            self._robot = SimulatedRobot(description, robot, self._config.seed, start_ns)
            self._connect(description)
            self._images.wait_until_ready()
        except (SceneError, RenderError, SimulatorMissingError) as error:
            raise ConfigureError(str(error)) from error
        except OSError as error:
            raise ConfigureError(f'the cameras cannot be started: {error}') from error
        self._start_ticking()

    def _start_cameras(self, description: str, robot: RobotConfig) -> ImageProcess:
        topics = {
            camera: self.resolve_topic_name(f'image/{camera}') for camera in robot.scene.cameras
        }
        job = CameraJob(
            description, robot.scene, f'{self.get_name()}_cameras', self.get_namespace(), topics
        )
        words = [sys.executable, '-m', 'vla_deploy.nodes.sim_cameras']
        return ImageProcess(words, job, environment_with(IMAGES))

    def destroy_node(self) -> None:
        """Take the cameras out of the graph too."""
        self._closing.close()
        super().destroy_node()

    def _connect(self, description: str) -> None:
        self._states = self.create_publisher(JointState, 'joint_states', qos.SENSOR)
        self._tool = self.create_publisher(PointStamped, '~/tool_position', qos.SENSOR)
        self._description = self.create_publisher(String, 'robot_description', qos.DESCRIPTION)
        self._description.publish(String(data=description))
        self._clock_publisher = (
            self.create_publisher(ClockMsg, '/clock', qos.CLOCK) if self._simulated else None
        )
        if self._config.command == 'velocity':
            self.create_subscription(
                Float64MultiArray, 'velocity_commands', self._on_velocities, qos.COMMAND
            )
        else:
            self.create_subscription(
                JointTrajectory, 'joint_trajectory', self._on_trajectory, qos.COMMAND
            )
        self.create_service(ResetScene, '~/reset', self._on_reset)

    def _start_ticking(self) -> None:
        period_s = 1.0 / self._config.joint_state_rate_hz
        self._tick_ns = round(period_s * NS_PER_S)
        if self._simulated:
            period_s /= self._config.real_time_factor
        else:
            self._robot.go_on_from(self._wall_ns())  # building the scene took a while
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(period_s, self._tick, clock=steady)

    def _tick(self) -> None:
        self._images.poll()
        if self._images.error:
            self.get_logger().error(f'images ended: {self._images.error}')
            self.exit_code = EXIT_FAILED
            return
        if self._simulated:
            if self._robot.time_ns >= self._image_due_ns and not self._images.idle:
                return  # simulated time waits for its images
            self._advance(self._robot.time_ns + self._tick_ns)
        else:
            self._advance(self._wall_ns())
        self._publish_state()
        if self._robot.time_ns >= self._image_due_ns:
            self._offer_view()

    def _advance(self, now_ns: int) -> None:
        left_out_s = self._robot.advance(now_ns)
        if left_out_s:
            self.get_logger().warning(f'the clock jumped by {left_out_s:.3f} s: not simulated')
            self._image_due_ns = self._robot.time_ns

    def _offer_view(self) -> None:
        period_ns = round(NS_PER_S / self._config.image_rate_hz)
        late_ns = max(0, self._robot.time_ns - self._image_due_ns)
        self._image_due_ns += (1 + late_ns // period_ns) * period_ns  # keeps the mean rate
        if self._images.offer(self._robot.view()):
            self.get_logger().warning(
                'drawing is slower than image_rate_hz: an image was left out',
                throttle_duration_sec=10.0,
            )

    def _publish_state(self) -> None:
        if self._clock_publisher is not None:
            self._clock_publisher.publish(ClockMsg(clock=time_msg(self._robot.time_ns)))
        self._states.publish(joint_state_msg(self._robot.joint_sample()))
        tool = PointStamped(point=_point(self._robot.scene.tool_position()))
        tool.header.stamp = time_msg(self._robot.time_ns)
        tool.header.frame_id = self._robot.scene.base_link
        self._tool.publish(tool)

    def _on_trajectory(self, msg: JointTrajectory) -> None:
        try:
            self._robot.accept(trajectory_from_msg(msg), self._now_ns())
        except TrajectoryRefusedError as error:
            self.get_logger().warning(
                f'trajectory refused: {error}', throttle_duration_sec=1.0
            )

    def _on_velocities(self, msg: Float64MultiArray) -> None:
        try:
            self._robot.accept_velocity(msg.data, self._now_ns())
        except TrajectoryRefusedError as error:
            self.get_logger().warning(
                f'velocities refused: {error}', throttle_duration_sec=1.0
            )

    def _on_reset(
        self, request: ResetScene.Request, response: ResetScene.Response
    ) -> ResetScene.Response:
        self._robot.reset(int(request.seed), request.black_images)
        self._images.discard()
        self._publish_state()
        self._image_due_ns = self._robot.time_ns
        self._offer_view()
        cubes = self._robot.scene.cube_positions()
        response.success = True
        response.cube_names = list(cubes)
        response.cube_positions = [_point(position) for position in cubes.values()]
        return response

    def _now_ns(self) -> int:
        return self._robot.time_ns if self._simulated else self._wall_ns()

    def _wall_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def _point(position: NDArray[np.float64]) -> Point:
    x, y, z = position.tolist()
    return Point(x=x, y=y, z=z)


def _description(urdf_path: str) -> str:
    if not urdf_path:
        raise ConfigureError('parameter urdf_path is empty: it names the robot that is simulated')
    try:
        return read_text(urdf_path)
    except FileError as error:
        raise ConfigureError(f'parameter urdf_path: {error}') from error


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to end; return the exit code."""
    return run_node(SimRobotNode, args, __doc__ or '', SimRobotConfig, profile=CONTROL)


if __name__ == '__main__':
    sys.exit(main())
