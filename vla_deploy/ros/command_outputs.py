# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's command publishers: a trajectory or a stream for each output."""

from __future__ import annotations

import array
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.outputs import NAMED, TRAJECTORY, VELOCITY_ARRAY, DeadBand, Output
from vla_deploy.core.stream import PositionStream, VelocityStream
from vla_deploy.core.trajectory import Trajectory
from vla_deploy.ros import qos
from vla_deploy.ros.recorders import RECORDERS
from vla_deploy.ros.trajectory_messages import TrajectoryMessage
from vla_deploy.ros.vendor_messages import VendorMessage

Array = NDArray[np.float64]


class CommandOutputs:
    """Every publisher of commands; a stream goes on to the end of its last motion by itself."""

    def __init__(
        self, node: Node, outputs: Sequence[Output], bounds: Bounds, period_s: float
    ) -> None:
        self._node, self._period_s = node, period_s
        self._trajectories: list[tuple[Any, Output, TrajectoryMessage]] = []
        self._streams: list[tuple[Any, DeadBand, Callable[[Array], Any]]] = []
        # First, because a vendor's package may be missing: then nothing is put into the graph.
        vendors = {o.topic: VendorMessage(o) for o in outputs if o.output_type in NAMED}
        for output in outputs:
            if output.output_type == TRAJECTORY:
                publisher = node.create_publisher(JointTrajectory, output.topic, qos.COMMAND)
                message = TrajectoryMessage(output.joints)
                self._trajectories.append((publisher, output, message))
                continue
            kind, fill = Float64MultiArray, _array_message
            if output.topic in vendors:
                kind, fill = vendors[output.topic].kind, vendors[output.topic].fill
            publisher = node.create_publisher(kind, output.topic, qos.COMMAND)
            self._streams.append((publisher, DeadBand(output), fill))
        # All outputs are of one control mode (core/outputs.py).
        in_velocity = any(output.output_type == VELOCITY_ARRAY for output in outputs)
        self._stream = (VelocityStream if in_velocity else PositionStream)(bounds, period_s)

    @property
    def publishers(self) -> list[Any]:
        """The publishers, to be destroyed with the other interfaces."""
        return [entry[0] for entry in (*self._trajectories, *self._streams)]

    def send(self, now_ns: int, trajectory: Trajectory | None) -> None:
        """Publish what was decided in this step; None: nothing but the rest of a stream."""
        if trajectory is not None:
            for publisher, output, message in self._trajectories:
                publisher.publish(message.fill(output.part(trajectory)))
        if not self._streams:
            return
        values = self._stream.step(now_ns, trajectory)
        if values is None:
            return
        for publisher, band, fill in self._streams:
            publisher.publish(fill(band.command(values)))

    def play_out(self, now_ns: int, timeout_s: float) -> bool:
        """Send streams on to the end of their motion, in real time; whether that was reached. For
        the end of a guard: a trajectory carries its own end, a stream has none but what is sent.

        now_ns: ROS time now; it goes on with the steady clock, since nobody spins meanwhile.
        """
        if not self._streams:
            return True
        began_s = time.monotonic()
        while self._stream.goes_on and (passed_s := time.monotonic() - began_s) < timeout_s:
            self.send(now_ns + round(passed_s * 1e9), None)
            time.sleep(self._period_s)
        return not self._stream.goes_on

    def keep_within(self, bounds: Bounds) -> None:
        """Hold streams to other bounds from now on."""
        self._stream.bounds = bounds

    def subscribers(self) -> int:
        """Subscribers of the command topic that has the fewest; a recorder moves no robot."""
        return min(
            sum(
                info.node_name not in RECORDERS
                for info in self._node.get_subscriptions_info_by_topic(publisher.topic_name)
            )
            for publisher in self.publishers
        )

    def other_publishers(self) -> int:
        """Publishers on the command topics besides the guard."""
        return sum(max(0, self._node.count_publishers(publisher.topic_name) - 1)
                   for publisher in self.publishers)

    def wait_until_received(self, seconds: float) -> None:
        """Give the last commands time to arrive."""
        for publisher in self.publishers:
            publisher.wait_for_all_acked(Duration(seconds=seconds))


def _array_message(values: Array) -> Float64MultiArray:
    return Float64MultiArray(data=array.array('d', np.ascontiguousarray(values).tobytes()))
