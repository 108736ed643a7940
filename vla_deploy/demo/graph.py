# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration's place in the graph: it resets, arms, tells, watches, and judges.

It gives the policy nothing but the text. Cube positions come back from the simulation's reset
service and serve to judge alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from geometry_msgs.msg import PointStamped
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.core.limits import JointLimits
from vla_deploy.demo.episode import EpisodePlan, EpisodeResult, StillDetector, judge
from vla_deploy.demo.excess import ExcessCheck
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_ns
from vla_deploy.ros.images import image_to_rgb
from vla_deploy.sim import reach
from vla_deploy_msgs.msg import ActionChunk, GuardStatus, PolicyStatus
from vla_deploy_msgs.srv import ResetScene

T = TypeVar('T')

_WAIT_S = 30.0
_LATCHED = (GuardStatus.STATE_FAULT, GuardStatus.STATE_ESTOP_LATCHED)
_STAGES = ('decode', 'preprocess', 'prefix', 'sample', 'postprocess')
# Enough for the picture of one episode: 8 s of commands at 100 Hz.
_COMMANDS_KEPT = 1200


class GraphError(Exception):
    """The graph did not do what the demonstration needs; says which part and what it said."""


@dataclass
class Recording:
    """What the report needs from the topics."""

    stages_s: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in (*_STAGES, 'transport', 'chunk')}
    )
    pictures: list[tuple[str, NDArray[np.uint8]]] = field(default_factory=list)
    commands: list[tuple[float, NDArray[np.float64], NDArray[np.float64]]] = field(
        default_factory=list
    )


class DemoGraph:
    """Runs episodes against a graph that is up."""

    def __init__(self, limits: JointLimits, camera: str, use_sim_time: bool) -> None:
        self.recording = Recording()
        self.check = ExcessCheck(limits)
        self.guard = GuardStatus()
        self.policy = PolicyStatus()
        self._limits, self._camera = limits, camera
        self._tool: tuple[int, NDArray[np.float64]] | None = None
        self._state_ns = self._image_ns = -1
        self._image: Image | None = None
        self._transport_seen: tuple[int, float] | None = None
        self._keep_commands = False
        self._changed = threading.Condition()
        clock = RosParameter('use_sim_time', value=use_sim_time)
        self.node = Node('demo', parameter_overrides=[clock])
        node, on = self.node, self._stored
        node.create_subscription(GuardStatus, 'guard/status', on(self._on_guard), qos.STATUS)
        node.create_subscription(
            PolicyStatus, 'inference/status', on(self._on_policy), qos.STATUS
        )
        node.create_subscription(ActionChunk, 'action_chunk', on(self._on_chunk), qos.CHUNK)
        node.create_subscription(
            JointTrajectory, 'joint_trajectory', on(self._on_command), qos.COMMAND
        )
        node.create_subscription(JointState, 'joint_states', on(self._on_state), qos.SENSOR)
        node.create_subscription(
            PointStamped, 'sim_robot/tool_position', on(self._on_tool), qos.SENSOR
        )
        node.create_subscription(Image, f'image/{camera}', on(self._on_image), qos.SENSOR)
        self._instruction = node.create_publisher(String, 'instruction', qos.INSTRUCTION_LATCHED)
        self._reset = node.create_client(ResetScene, 'sim_robot/reset')
        self._arm = node.create_client(Trigger, 'guard/arm')
        self._disarm = node.create_client(Trigger, 'guard/disarm')
        self._reset_guard = node.create_client(Trigger, 'guard/reset')
        self._stop = node.create_client(Trigger, 'inference/stop')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=2.0)
        self.node.destroy_node()

    def wait_until_up(self, alive: Callable[[], str]) -> None:
        """Wait until both nodes serve; raise GraphError with what `alive` says of a death."""
        ready = PolicyStatus.HEALTH_READY
        self._wait(
            lambda: (
                self.policy.health in (ready, PolicyStatus.HEALTH_DEGRADED)
                and self.guard.state != 0
                and self._tool is not None
                and self._image_ns >= 0
            ),
            'the graph is not up',
            60.0,
            alive,
        )

    def largest_state_gap_s(self, seconds: float) -> float:
        """Watch joint states for a while; return the longest steady time without one."""
        end_s = begin_s = time.monotonic()
        largest_s, last_ns = 0.0, self._state_ns
        with self._changed:
            while end_s - begin_s < seconds:
                self._changed.wait_for(lambda seen=last_ns: self._state_ns != seen, timeout=seconds)
                now_s = time.monotonic()
                largest_s, end_s, last_ns = max(largest_s, now_s - end_s), now_s, self._state_ns
        return largest_s

    def run(self, plan: EpisodePlan, keep_pictures: bool) -> EpisodeResult:
        """Run one episode and judge it; raise GraphError if the graph does not play its part."""
        goals = self._prepare(plan)
        if keep_pictures:
            self.recording.commands.clear()
        self._keep_commands = keep_pictures
        if keep_pictures and self._image is not None:
            self._picture(f'{plan.instruction.strip() or plan.kind}: before')
        begin_ns = self._now_ns()
        self._instruction.publish(String(data=plan.instruction))
        detector, over, last_ns = StillDetector(begin_ns), '', -1
        tool = np.full(3, np.nan)
        while not over:
            held = self._wait_for_tool(last_ns)
            if held is None:
                over = 'the simulated robot has gone silent'
            else:
                last_ns, tool = held
                over = detector.add(last_ns, tool)
            if self.guard.state in _LATCHED:
                over = f'guard {self.guard.state_name}: {self.guard.reason}'
        self._keep_commands = False
        if keep_pictures:
            self._picture(f'{plan.instruction.strip() or plan.kind}: after')
        self._call(self._stop, Trigger.Request())
        return judge(plan, tool, goals, (last_ns - begin_ns) * 1e-9, over)

    def _prepare(self, plan: EpisodePlan) -> dict[str, NDArray[np.float64]]:
        """Disarm, place arm and cubes anew, arm; return the goal above each cube [3]."""
        self._call(self._stop, Trigger.Request())
        if self.guard.state in _LATCHED:
            self._reset_latched()
        self._call(self._disarm, Trigger.Request())
        self._wait(
            lambda: self.guard.state == GuardStatus.STATE_DISARMED, 'the guard did not disarm'
        )
        request = ResetScene.Request(seed=plan.seed, black_images=plan.kind == 'black')
        answer = self._call(self._reset, request)
        if not answer.success:
            raise GraphError(f'sim_robot/reset: {answer.message}')
        reset_ns = self._now_ns()
        self._wait(
            lambda: self._state_ns > reset_ns and self._image_ns > reset_ns,
            'no joint state and image came after the reset',
        )
        self._take_control()
        lift = np.array([0.0, 0.0, reach.GOAL_HEIGHT_M])
        return {
            name: np.array([point.x, point.y, point.z]) + lift
            for name, point in zip(answer.cube_names, answer.cube_positions, strict=True)
        }

    def lost_real_time(self) -> bool:
        """Tell whether the guard stopped because joint states came too late."""
        stopped = self.guard.state == GuardStatus.STATE_FAULT
        return stopped and self.guard.reason.startswith('joint state')

    def _take_control(self) -> None:
        """Arm; a guard that has latched in the meantime is reset first."""
        deadline_s = time.monotonic() + _WAIT_S
        while True:
            armed = self._call(self._arm, Trigger.Request())
            if armed.success:
                return
            if time.monotonic() > deadline_s:
                raise GraphError(f'guard/arm: {armed.message}')
            if self.guard.state in _LATCHED:
                self._reset_latched()
            time.sleep(0.1)

    def _reset_latched(self) -> None:
        """Reset a guard that stopped in the episode before; its cause may take a while to go."""
        deadline_s = time.monotonic() + _WAIT_S
        while True:
            answer = self._call(self._reset_guard, Trigger.Request())
            if answer.success:
                return
            if time.monotonic() > deadline_s:
                raise GraphError(f'guard/reset: {answer.message}')
            time.sleep(0.1)

    # -- topics ---------------------------------------------------------------------------------

    def _stored(self, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        def callback(msg: Any) -> None:
            with self._changed:
                handle(msg)
                self._changed.notify_all()

        return callback

    def _on_guard(self, msg: GuardStatus) -> None:
        self.guard = msg
        seen = (msg.last_seq, msg.last_transport_s)
        if msg.last_transport_s >= 0 and seen != self._transport_seen:
            self._transport_seen = seen
            self.recording.stages_s['transport'].append(msg.last_transport_s)

    def _on_policy(self, msg: PolicyStatus) -> None:
        self.policy = msg

    def _on_chunk(self, msg: ActionChunk) -> None:
        if msg.ends_session:
            return
        for stage in _STAGES:
            self.recording.stages_s[stage].append(getattr(msg.timings, f'{stage}_s'))
        total = msg.inference_time.sec + msg.inference_time.nanosec * 1e-9
        self.recording.stages_s['chunk'].append(total)

    def _on_command(self, msg: JointTrajectory) -> None:
        self.check.add_command(msg)
        if self._keep_commands and len(self.recording.commands) < _COMMANDS_KEPT:
            order = [msg.joint_names.index(name) for name in self._limits.names]
            first = msg.points[0]
            self.recording.commands.append(
                (
                    time_ns(msg.header.stamp) * 1e-9,
                    np.asarray(first.positions)[order],
                    np.asarray(first.velocities)[order],
                )
            )

    def _on_state(self, msg: JointState) -> None:
        self._state_ns = time_ns(msg.header.stamp)
        self.check.add_measurement(msg)

    def _on_tool(self, msg: PointStamped) -> None:
        self._tool = (
            time_ns(msg.header.stamp),
            np.array([msg.point.x, msg.point.y, msg.point.z]),
        )

    def _on_image(self, msg: Image) -> None:
        self._image, self._image_ns = msg, time_ns(msg.header.stamp)

    # -- waiting --------------------------------------------------------------------------------

    def _picture(self, title: str) -> None:
        assert self._image is not None
        self.recording.pictures.append((title, image_to_rgb(self._image).copy()))

    def _now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def _wait_for_tool(self, after_ns: int) -> tuple[int, NDArray[np.float64]] | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._tool is not None and self._tool[0] > after_ns, timeout=5.0
            )
            return self._tool if self._tool is not None and self._tool[0] > after_ns else None

    def _wait(
        self,
        condition: Callable[[], bool],
        complaint: str,
        timeout_s: float = _WAIT_S,
        alive: Callable[[], str] = lambda: '',
    ) -> None:
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                death = alive()
                if death:
                    raise GraphError(death)
                if time.monotonic() > deadline_s:
                    raise GraphError(
                        f'{complaint} after {timeout_s:.0f} s; '
                        f'guard: {self.guard.state_name or "not heard"} {self.guard.reason}; '
                        f'inference: {self.policy.health_name or "not heard"} '
                        f'{self.policy.reason}'
                    )
                self._changed.wait(timeout=0.1)

    def _call(self, client: Any, request: Any) -> Any:
        if not client.wait_for_service(timeout_sec=_WAIT_S):
            raise GraphError(f'service {client.srv_name} is not there')
        future = client.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _future: done.set())
        if not done.wait(_WAIT_S):
            raise GraphError(f'service {client.srv_name} did not answer in {_WAIT_S:.0f} s')
        return future.result()
