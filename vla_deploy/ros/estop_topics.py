# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The topics of emergency stops, each subscribed so that no publisher goes unheard."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from std_msgs.msg import Bool

from vla_deploy.core.estop import EstopSources
from vla_deploy.ros import qos
from vla_deploy.ros.guard_node_config import GuardNodeConfig


class EstopTopics:
    """Two readers a topic: best-effort volatile, and reliable transient-local."""

    def __init__(
        self,
        node: Node,
        config: GuardNodeConfig,
        on_message: Callable[[], None],
        on_incompatible: Callable[[str], None],
    ) -> None:
        """on_message: after each message. on_incompatible: with the name of a topic that has a
        publisher which cannot be heard."""
        self._node, self._on_message = node, on_message
        self._sources = EstopSources(
            config.estop_topics, config.estop_required, config.estop_timeout_s
        )
        self.subscriptions: list[Any] = []
        self._resolved: dict[str, str] = {}
        for topic in config.estop_topics:
            heard = functools.partial(self._hear, topic)
            # A best-effort volatile reader hears every publisher; if it cannot, that is a fault.
            told = SubscriptionEventCallbacks(
                incompatible_qos=lambda _event, topic=topic: on_incompatible(topic)
            )
            untold = SubscriptionEventCallbacks(incompatible_qos=lambda _event: None)
            subscribe = node.create_subscription
            pair = (
                subscribe(Bool, topic, heard, qos.ESTOP_VOLATILE, event_callbacks=told),
                subscribe(Bool, topic, heard, qos.ESTOP_LATCHED, event_callbacks=untold),
            )
            self.subscriptions += pair
            self._resolved[topic] = pair[0].topic_name

    def look_at_graph(self) -> None:
        """Count the publishers of each topic again."""
        for topic, name in self._resolved.items():
            self._sources.count(topic, self._node.count_publishers(name))

    def inputs(self) -> dict[str, Any]:
        """Return what the sources ask for now, as fields of the guard's inputs."""
        reason = self._sources.reason(time.monotonic_ns())
        return {'estop': bool(reason), 'estop_reason': reason}

    def missing(self) -> str:
        """Return which required topic was never heard; empty if none."""
        return self._sources.missing()

    def _hear(self, topic: str, msg: Bool) -> None:
        publishers = self._node.count_publishers(self._resolved[topic])
        self._sources.hear(topic, msg.data, publishers, time.monotonic_ns())
        self._on_message()
