# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Who records a topic: a listener that moves no robot, and that must not miss its beginning."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

# Ours, and that of `ros2 bag record`.
RECORDERS = ('recorder', 'rosbag2_recorder')


def unheard(node: Node, topic: str) -> str:
    """Return why no recorder is known to have each message of a reliable publisher of a topic from
    now on; empty if one is.

    Ours listens by best effort before it knows of the publisher, and reliably from then on, unless
    another publisher of the topic offers best effort only.
    """
    heard = [
        info.qos_profile.reliability
        for info in node.get_subscriptions_info_by_topic(topic)
        if info.node_name in RECORDERS
    ]
    if ReliabilityPolicy.RELIABLE in heard:
        return ''
    if heard:
        return f'the recorder hears {topic} by best effort: is another publisher of it best effort?'
    return f'no node named {" or ".join(RECORDERS)} hears {topic}'
