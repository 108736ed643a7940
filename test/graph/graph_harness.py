# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A graph under test: real processes in a ROS domain of their own, and a node that watches them.

    graph = Graph(folder)
    guard = graph.start_guard(auto_arm=True)
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to be in control')
    graph.publish_chunk(sweep(graph.measured(), joint=0, distance=0.3, duration_s=1.0))
    guard.kill()
    graph.close()

Nothing here sleeps: `wait` spins the watching node until a condition holds. Every subscription
keeps every message, in `graph.trajectories`, `graph.executions` and so on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from fr3_motion import JOINTS, PERIOD_S, URDF, fr3_limits, guard_parameters, sweep
from graph_process import Domain, GraphProcess, joining_with_images
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.core.audit_file import verify_log
from vla_deploy.demo.excess import ExcessCheck
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import JointMap, duration_msg, time_msg
from vla_deploy.shared_memory import remove_stale_ports, remove_stale_segments
from vla_deploy_msgs.msg import (
    ActionChunk,
    ExecutionState,
    GuardStatus,
    PolicyStatus,
    Violation,
)

WAIT_S = 30.0
REST_RAD_S = 0.02  # a measured joint slower than this stands still

# A test that is late with spinning must not lose a message.
KEEP_ALL = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=5000,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
)
KEEP_ALL_RELIABLE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=5000,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)


class Graph:
    """One domain with its processes, watched by a node of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._domain = Domain()
        self.environment = {
            **os.environ,
            'ROS_DOMAIN_ID': str(self._domain.number),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'ROS_HOME': str(folder / 'ros_home'),  # bring-ups log there
        }
        self.log_folder = folder / 'audit'
        self.processes: list[GraphProcess] = []
        self.context = rclpy.Context()
        with joining_with_images():
            rclpy.init(context=self.context, domain_id=self._domain.number)
            self.node = rclpy.create_node('watcher', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._joint_map = JointMap(JOINTS)
        self.limits = fr3_limits()
        self.guards = self.listen(GuardStatus, 'guard/status', qos.STATUS)
        self.policies = self.listen(PolicyStatus, 'inference/status', qos.STATUS)
        self.trajectories = self.listen(JointTrajectory, 'joint_trajectory', KEEP_ALL_RELIABLE)
        self.executions = self.listen(ExecutionState, 'execution_state', KEEP_ALL)
        self.violations = self.listen(Violation, 'guard/violations', KEEP_ALL_RELIABLE)
        self.chunks: list[ActionChunk] = []
        self.ends: list[ActionChunk] = []  # chunks without actions, which end their session
        self.node.create_subscription(
            ActionChunk,
            'action_chunk',
            lambda msg: (self.ends if msg.ends_session else self.chunks).append(msg),
            KEEP_ALL_RELIABLE,
        )
        self.joint_states = self.listen(JointState, 'joint_states', KEEP_ALL)
        self._chunk_publisher: Any = None

    def close(self) -> None:
        """End every process, and leave the domain."""
        for process in reversed(self.processes):
            if process.exit_code is None:
                process.send(signal.SIGCONT)
                process.send(signal.SIGINT)
        deadline = time.monotonic() + WAIT_S
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process._popen.wait(max(0.1, deadline - time.monotonic()))
            process.kill()
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()
        self._domain.release()
        remove_stale_segments()
        remove_stale_ports()

    # -- processes ------------------------------------------------------------------------------

    def run(self, *command: str) -> GraphProcess:
        """Start a command in this domain."""
        log = self._folder / f'{len(self.processes)}.log'
        process = GraphProcess(list(command), log, self.environment, self._domain)
        self.processes.append(process)
        return process

    def start(self, node: str, **parameters: Any) -> GraphProcess:
        """Start a node of the package with these parameters, and no others."""
        words = [sys.executable, '-m', f'vla_deploy.nodes.{node}', '--ros-args']
        for name, value in parameters.items():
            words += ['-p', f'{name}:={json.dumps(value)}']  # JSON is YAML
        return self.run(*words)

    def start_sim_robot(self, **parameters: Any) -> GraphProcess:
        """Start the simulated robot, with small and rare images unless told otherwise."""
        defaults = {
            'urdf_path': str(URDF), 'image_rate_hz': 1.0, 'image_width': 32, 'image_height': 32,
            'cameras': ['front'],
        }  # fmt: skip
        return self.start('sim_robot', **{**defaults, **parameters})

    def start_guard(self, **parameters: Any) -> GraphProcess:
        return self.start('guard', **{**guard_parameters(), **parameters})

    def start_inference(self, bundle: Path, **parameters: Any) -> GraphProcess:
        defaults = {'autostart': True, 'bundle': str(bundle), 'execute_steps': 8}
        return self.start('inference', **{**defaults, **parameters})

    def add_node(self, make_node: Callable[..., Any], **parameters: Any) -> Any:
        """Make a node in this process, spun together with the watcher: cheap, for what needs no
        process of its own. Remove it with `remove_node`."""
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = make_node(context=self.context, parameter_overrides=overrides)
        self.executor.add_node(node)
        return node

    def remove_node(self, node: Any) -> None:
        self.executor.remove_node(node)
        if node.lifecycle_state != State.PRIMARY_STATE_FINALIZED:
            node.trigger_shutdown()
        node.destroy_node()

    # -- watching -------------------------------------------------------------------------------

    def listen(self, kind: type, topic: str, profile: QoSProfile) -> list[Any]:
        """Return a list that every message of a topic is added to, from now on."""
        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, profile)
        return heard

    def wait(
        self, condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S
    ) -> None:
        """Spin until the condition holds; fail with what was waited for, and with the logs."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f'not within {timeout_s} s: {what}\n{self._situation()}')
            self.executor.spin_once(timeout_sec=0.05)

    def wait_for_exit(self, process: GraphProcess) -> int:
        """Wait until a process has ended; return its exit code."""
        self.wait(lambda: process.exit_code is not None, 'the process to end')
        assert process.exit_code is not None
        return process.exit_code

    def count_publishers(self, topic: str) -> int:
        """Publishers of other nodes than the watcher."""
        return sum(
            info.node_name != 'watcher'
            for info in self.node.get_publishers_info_by_topic(f'/{topic}')
        )

    def now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    @property
    def guard(self) -> GuardStatus:
        """The guard's newest status; an empty one before the first."""
        return self.guards[-1] if self.guards else GuardStatus()

    @property
    def policy(self) -> PolicyStatus:
        """The newest status of inference; an empty one before the first."""
        return self.policies[-1] if self.policies else PolicyStatus()

    def measured(self) -> np.ndarray:
        """Return the positions of the next joint state [joints]."""
        heard = len(self.joint_states)
        self.wait(lambda: len(self.joint_states) > heard, 'a joint state')
        return self._joint_map.positions(self.joint_states[-1])

    def speed(self) -> float:
        """Return the largest measured speed of a joint in the newest joint state [rad/s]."""
        if not self.joint_states or not self.joint_states[-1].velocity:  # which may be left out
            return 0.0
        return float(np.abs(self._joint_map.velocities(self.joint_states[-1])).max())

    def wait_until_moving(
        self, at_least_rad_s: float = 0.1, timeout_s: float = WAIT_S
    ) -> None:
        self.wait(lambda: self.speed() > at_least_rad_s, 'the robot to move', timeout_s)

    def wait_until_standing(self) -> np.ndarray:
        """Wait for 20 joint states in a row at rest; return the positions [joints]."""

        def stands() -> bool:
            last = self.joint_states[-20:]
            return len(last) == 20 and all(
                np.abs(self._joint_map.velocities(msg)).max() < REST_RAD_S for msg in last
            )

        self.wait(stands, 'the robot to stand still')
        self.wait_for_joint_states(10)  # what else was on its way has been heard by then
        return self._joint_map.positions(self.joint_states[-1])

    def wait_for_joint_states(self, count: int) -> None:
        """Let the robot's own time pass, so that what was to happen would have happened."""
        end = len(self.joint_states) + count
        self.wait(lambda: len(self.joint_states) >= end, f'{count} joint states')

    def forget(self) -> None:
        """Drop what was heard, but for the newest statuses."""
        for heard in (
            self.trajectories, self.executions, self.violations, self.chunks, self.joint_states
        ):  # fmt: skip
            heard.clear()

    def excess(self) -> ExcessCheck:
        """Judge every trajectory and every joint state so far against the limits, from outside."""
        check = ExcessCheck(self.limits)
        for trajectory in self.trajectories:
            check.add_command(trajectory)
        for state in self.joint_states:
            check.add_measurement(state)
        return check

    def check_audit_logs(self) -> None:
        """Every log in `log_folder` is whole, the newest up to the head last published."""
        *older, newest = sorted(self.log_folder.iterdir())
        for log in older:
            verify_log(log)
        assert verify_log(newest, self.guard.audit_head).records >= self.guard.audit_records > 0
        assert self.guard.audit_lost == 0

    # -- acting ---------------------------------------------------------------------------------

    def call(self, kind: type, service: str, request: Any) -> Any:
        future = self._client(kind, service).call_async(request)
        self.wait(future.done, f'an answer of {service}')
        return future.result()

    def _client(self, kind: type, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        self.wait(client.service_is_ready, f'service {service}')
        return client

    def trigger(self, service: str) -> Trigger.Response:
        """Call a Trigger service; again if no answer comes, since the server may have died."""
        return self._ask(Trigger, service, Trigger.Request())

    def _ask(self, kind: type, service: str, request: Any) -> Any:
        """Call a service, and again if no answer comes: for what may be asked twice."""
        client = self._client(kind, service)
        for _ in range(10):
            future = client.call_async(request)
            with contextlib.suppress(AssertionError):
                self.wait(future.done, f'an answer of {service}', WAIT_S / 10)
                return future.result()
        raise AssertionError(f'no answer of {service}\n{self._situation()}')

    def change_state(self, node: str, transition: str) -> bool:
        """Ask for a lifecycle transition by name; return whether it succeeded."""
        number = getattr(Transition, f'TRANSITION_{transition.upper()}')
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call(ChangeState, f'{node}/change_state', request).success)

    def lifecycle_state(self, node: str) -> str:
        answer = self._ask(GetState, f'{node}/get_state', GetState.Request())
        return str(answer.current_state.label)

    @contextlib.contextmanager
    def publisher(self, kind: type, topic: str, profile: QoSProfile) -> Iterator[Any]:
        """A publisher of the watcher that is matched, and gone afterwards."""
        publisher = self.node.create_publisher(kind, topic, profile)
        try:
            self.wait(lambda: publisher.get_subscription_count() > 0, f'a subscriber of {topic}')
            yield publisher
        finally:
            self.node.destroy_publisher(publisher)

    def tell(self, text: str, profile: QoSProfile = qos.INSTRUCTION_LATCHED) -> None:
        """Publish an instruction, once inference listens, and wait until it was taken up."""
        with self.publisher(String, 'instruction', profile) as publisher:
            publisher.publish(String(data=text))
            refused = 'instruction: '  # is what the reason begins with then
            self.wait(
                lambda: text == self.policy.instruction or self.policy.reason.startswith(refused),
                f'inference to hear {text!r}',
            )

    def publish_chunk(self, samples: np.ndarray, **fields: Any) -> ActionChunk:
        """Publish a chunk that begins now and is the first of a session of its own.

        samples: float64 [steps, joints]. `fields` replace fields of the message.
        """
        if self._chunk_publisher is None:
            self._chunk_publisher = self.node.create_publisher(
                ActionChunk, 'action_chunk', qos.CHUNK
            )
        publisher = self._chunk_publisher
        # The watcher itself listens too.
        self.wait(lambda: publisher.get_subscription_count() > 1, 'the guard to hear chunks')
        now = time_msg(self.now_ns())
        msg = ActionChunk(
            schema_version=ActionChunk.SCHEMA_VERSION,
            session_id=uuid.uuid4().hex,
            observation_stamp=now,
            sent_stamp=now,
            valid_until=time_msg(self.now_ns() + 10**9),
            period=duration_msg(PERIOD_S),
            control_mode=ActionChunk.CONTROL_MODE_POSITION,
            joint_names=list(JOINTS),
            steps=len(samples),
            data=np.asarray(samples, np.float64).ravel().tolist(),
        )
        msg.header.stamp = now
        for name, value in fields.items():
            setattr(msg, name, value)
        publisher.publish(msg)
        return msg

    def move(self, distance: float = 0.4, duration_s: float = 2.0) -> None:
        """Move the first joint, and wait until it moves; toward the middle of its range."""
        position = self.measured()
        distance = -distance if position[0] > 0 else distance
        self.publish_chunk(sweep(position, 0, distance, duration_s))
        self.wait_until_moving()

    def take_control(self) -> None:
        """Bring the guard to HOLD from whatever state a test has left it in, the robot at rest."""
        self.wait(lambda: self.guards, 'the guard')
        if self.guard.state in (GuardStatus.STATE_ESTOP_LATCHED, GuardStatus.STATE_FAULT):
            self.wait(lambda: self.trigger('guard/reset').success, 'a reset')
        self.wait(lambda: self.trigger('guard/arm').success, 'the guard to arm')
        self.wait(lambda: self.guard.state_name == 'HOLD', 'HOLD')
        self.wait_until_standing()

    def _situation(self) -> str:
        lines = [
            f'guard: {self.guard.state_name} {self.guard.reason}, at {self.speed():.3f} rad/s',
            f'inference: {self.policy.health_name} {self.policy.reason}, {len(self.chunks)} chunks',
        ]
        for process in self.processes:
            ended = '' if process.exit_code is None else f' (ended: {process.exit_code})'
            lines.append(f'-- process {process.pid}{ended}')
            lines.append(process.output()[-2000:])
        return '\n'.join(lines)


def lifecycle_label(state_id: int) -> str:
    """Return the name of a lifecycle state's id in a status message."""
    names = ('unconfigured', 'inactive', 'active', 'finalized')
    return {getattr(State, f'PRIMARY_STATE_{n.upper()}'): n for n in names}.get(state_id, '')
