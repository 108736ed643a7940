# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A robot, and if asked a guard, played by the node that watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fr3_motion import HOME, JOINTS
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_msg
from vla_deploy_msgs.msg import (
    ExecutionState,
)

if TYPE_CHECKING:
    from graph_harness import Graph


class FakeRobot:
    """Joint states, and if asked images and a guard, published by the watcher while it spins."""

    def __init__(
        self, graph: Graph, cameras: Sequence[str] = (), guard_state: int | None = None
    ) -> None:
        self.names = list(JOINTS)
        self.position = list(HOME)
        self.images = {camera: grey_image() for camera in cameras}
        self.image_delay_s = 0.0
        self.guard_state = guard_state
        self.chunks_refused = 0
        self.consumed_total = 0
        self.moving = False
        self.plan: tuple[str, int, int] | None = None  # session, seq, next sample
        self._graph, node = graph, graph.node
        self._states = node.create_publisher(JointState, 'joint_states', qos.SENSOR)
        self._images = {
            (camera, kind): node.create_publisher(kind, f'image/{camera}{suffix}', qos.SENSOR)
            for camera in cameras
            for kind, suffix in ((Image, ''), (CompressedImage, '/compressed'))
        }
        self._execution = (
            node.create_publisher(ExecutionState, 'execution_state', qos.EXECUTION_STATE)
            if guard_state is not None
            else None
        )
        self._timer = node.create_timer(0.02, self._publish)

    def stop(self) -> None:
        """Go silent."""
        self._timer.cancel()

    def go_on(self) -> None:
        self._timer.reset()

    def leave(self) -> None:
        """Take the robot out of the graph."""
        node = self._graph.node
        node.destroy_timer(self._timer)
        for publisher in (self._states, *self._images.values(), self._execution):
            if publisher is not None:
                node.destroy_publisher(publisher)

    def _publish(self) -> None:
        now_ns = self._graph.now_ns()
        stamp = time_msg(now_ns)
        state = JointState(name=self.names, position=self.position)
        state.header.stamp = stamp
        self._states.publish(state)
        for camera, image in self.images.items():
            image.header.stamp = time_msg(now_ns - round(self.image_delay_s * 1e9))
            self._images[camera, type(image)].publish(image)
        if self._execution is not None and self.guard_state is not None:
            execution = ExecutionState(
                guard_state=self.guard_state,
                chunks_refused=self.chunks_refused,
                consumed_total=self.consumed_total,
                commanded_velocity=[0.1 if self.moving else 0.0] * len(JOINTS),
            )
            execution.header.stamp = stamp
            if self.plan is not None:
                execution.has_plan = True
                execution.session_id, execution.seq, execution.next_index = self.plan
            self._execution.publish(execution)


def grey_image(encoding: str = 'rgb8', width: int = 64, height: int = 64) -> Image:
    bytes_a_pixel = {'rgb8': 3, '16UC1': 2}[encoding]
    step = width * bytes_a_pixel
    return Image(
        height=height, width=width, encoding=encoding, step=step, data=bytes([127]) * step * height
    )
