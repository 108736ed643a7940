# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Who records a topic: a listener that moves no robot, and that must not miss its beginning."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

# Ours, and that of `ros2 bag record`.
RECORDERS = ('recorder', 'rosbag2_recorder')


def listens(node: Node, topic: str) -> bool:
    """Say whether a recorder has every message of a reliable publisher of a topic from now on.

    A recorder listens reliably once it knows of such a publisher, and not before.
    """
    return any(
        info.node_name in RECORDERS
        and info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        for info in node.get_subscriptions_info_by_topic(topic)
    )
