# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics are recorded, how each is heard, and how a bag describes it.

A topic is heard by up to two subscriptions, both raw: a volatile one for every publisher, and a
latched one where a publisher keeps what it said before. What both hear is taken once.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo

from vla_deploy.trace.bag_writer import Topic
from vla_deploy.trace.definitions import DefinitionError, installed_definition

DEPTH = 100
IMAGES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
_LARGE_DEPTH = 20  # images: 1 MB each
_REMEMBERED = 4 * DEPTH
_NS_PER_S = 1_000_000_000

# The node of an endpoint as long as the message that tells it has not come. It may get lost for
# good; endpoints themselves are found in another way.
NO_NODE = '_NODE_NAMESPACE_UNKNOWN_', '_NODE_NAME_UNKNOWN_'

_Endpoints = Sequence[TopicEndpointInfo]
# topic, when it came and when it was sent [ns of the system's clock], its bytes
Take = Callable[[Topic, int, int, bytes], None]


class _Heard:
    """One topic: its description, its subscriptions, and what came lately."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.publishers = 0
        self.volatile: Any = None
        self.replaced: Any = None  # the volatile one before, until the new one has been found
        self.latched: Any = None
        self._stamps: deque[int] = deque(maxlen=_REMEMBERED)
        self._last_number = 0

    def describe(self, endpoints: Sequence[TopicEndpointInfo]) -> None:
        """Note what publishers offer, once there are any, for the bag."""
        if not self.topic.qos:
            offered = tuple(described(info.qos_profile) for info in endpoints)
            self.topic = replace(self.topic, qos=offered)

    def subscriptions(self) -> list[Any]:
        return [s for s in (self.latched, self.replaced, self.volatile) if s is not None]

    def is_new(self, sent_ns: int) -> bool:
        """Tell whether a message was not heard before, by the other subscription."""
        if sent_ns in self._stamps:
            return False
        self._stamps.append(sent_ns)
        return True

    def missing(self, number: int) -> int:
        """Return how many messages of the one publisher are missing before this one."""
        last, self._last_number = self._last_number, number
        following = self.publishers == 1 and 0 < last < number
        return number - last - 1 if following else 0


class _Polled(CallbackGroup):
    """Keeps subscriptions out of the executor, which would look at all of them for each message;
    `poll` looks a hundred times a second instead."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing is executed."""


class RecordedTopics:
    """Subscribes to all that some nodes publish or hear, and to further topics, as they appear.
    `scan` looks for them, `poll` takes what came; both from one thread.

    nodes: namespace and name of each of those nodes.
    """

    def __init__(
        self,
        node: Node,
        nodes: Sequence[str],
        topics: Sequence[str],
        images: bool,
        take: Take,
        lost: Callable[[str, int], None],
    ) -> None:
        """Take topics of `nodes` and the topics named. `images`: whether images are taken;
        `lost` hears of messages that the transport lost."""
        self._node, self._take, self._lost = node, take, lost
        own, named = node.get_namespace(), [name.rpartition('/')[::2] for name in nodes]
        self.nodes, self._images = {(space or own, name) for space, name in named}, images
        self._named = {node.resolve_topic_name(topic) for topic in topics}
        self._group = _Polled()
        self._heard: dict[str, _Heard] = {}
        self.unreadable: dict[str, str] = {}  # topic -> why it is not recorded

    def scan(self) -> None:
        """Look at the graph and subscribe to what is new."""
        for name, (type_name, publishers) in self._wanted().items():
            if name in self.unreadable:
                continue
            if name not in self._heard:
                try:
                    definition, type_hash = installed_definition(type_name)
                    message_type(type_name)
                except DefinitionError as error:
                    self.unreadable[name] = str(error)
                    continue
                self._heard[name] = _Heard(Topic(name, type_name, definition, type_hash))
            self._heard[name].describe(publishers)
            self._subscribe(self._heard[name], publishers)

    def poll(self) -> None:
        """Take every message that has come."""
        for heard in self._heard.values():
            for subscription in heard.subscriptions():
                self._take_all(heard, subscription)

    def _take_all(self, heard: _Heard, subscription: Any) -> None:
        for data, info in _taken(subscription):
            self._on_message(heard, subscription is not heard.latched, data, info)

    def _on_message(
        self, heard: _Heard, volatile: bool, data: bytes, info: Mapping[str, Any]
    ) -> None:
        if volatile:
            missing = heard.missing(info['publication_sequence_number'])
            if missing:
                self._lost(heard.topic.name, missing)
        if not heard.topic.qos:  # its publisher is newer than the last scan
            heard.describe(self._node.get_publishers_info_by_topic(heard.topic.name))
        if heard.is_new(info['source_timestamp']):
            self._take(heard.topic, info['received_timestamp'], info['source_timestamp'], data)

    def _wanted(self) -> dict[str, tuple[str, _Endpoints]]:
        """Return the topics to record, each with its type and its publishers."""
        types = {name: kinds[0] for name, kinds in self._node.get_topic_names_and_types()}
        publishers = {name: self._node.get_publishers_info_by_topic(name) for name in types}
        subscribers = {name: self._node.get_subscriptions_info_by_topic(name) for name in types}
        used = topics_of_nodes(
            {name: [*publishers[name], *subscribers[name]] for name in types}, self.nodes
        )
        return {
            name: (kind, publishers[name])
            for name, kind in types.items()
            if name in self._named or (name in used and (self._images or kind not in IMAGES))
        }

    def _subscribe(self, heard: _Heard, endpoints: Sequence[TopicEndpointInfo]) -> None:
        """Hear everybody: reliably if all are reliable, and what latched publishers said before."""
        heard.publishers = len(endpoints)
        self._end_replaced(heard)
        profiles = [info.qos_profile for info in endpoints]
        reliable = bool(profiles) and all(
            p.reliability == ReliabilityPolicy.RELIABLE for p in profiles
        )
        before = heard.volatile
        if before is None or (
            profiles
            and reliable != (before.qos_profile.reliability == ReliabilityPolicy.RELIABLE)
        ):
            heard.volatile = self._subscription(heard, 'volatile', reliable)
            heard.replaced = before
        latched = any(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
        if latched and heard.latched is None:
            heard.latched = self._subscription(heard, 'latched', True)

    def _end_replaced(self, heard: _Heard) -> None:
        """End what the scan before has replaced, but take what waits in it: a publisher that says
        one thing and goes, as `ros2 topic pub --once`, may have found no other."""
        if heard.replaced is not None:
            self._take_all(heard, heard.replaced)
            self._node.destroy_subscription(heard.replaced)
            heard.replaced = None

    def _subscription(self, heard: _Heard, by: str, reliable: bool) -> Any:
        topic = heard.topic
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=_LARGE_DEPTH if topic.type_name in IMAGES else DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL if by == 'latched' else DurabilityPolicy.VOLATILE
            ),
        )
        return self._node.create_subscription(
            message_type(topic.type_name), topic.name, _executed_by_nobody, profile, raw=True,
            callback_group=self._group,
        )  # fmt: skip


def topics_of_nodes(
    endpoints: Mapping[str, _Endpoints], nodes: Collection[tuple[str, str]]
) -> set[str]:
    """Return the topics that some nodes publish or hear, of all topics with their endpoints.

    `nodes`: namespace and name of each. An endpoint without a node counts where its participant
    (RTPS 2.5, 9.3.1: the first 12 bytes of its GUID) has an endpoint of such a node.
    """
    found = [
        (topic, (e.node_namespace, e.node_name), bytes(e.endpoint_gid[:12]))
        for topic, ends in endpoints.items()
        for e in ends
    ]
    participants = {participant for _, node, participant in found if node in nodes}
    return {
        topic
        for topic, node, participant in found
        if node in nodes or (node == NO_NODE and participant in participants)
    }


def _taken(subscription: Any) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
    handle = subscription.handle
    with handle:
        while (taken := handle.take_message(subscription.msg_type, True)) is not None:
            yield taken


def _executed_by_nobody(_data: bytes) -> None:
    raise AssertionError('the executor took a message that is polled')


def message_type(type_name: str) -> Any:
    """Return the class of `package/msg/Name`; raises DefinitionError."""
    package, folder, name = type_name.split('/')
    try:
        return getattr(importlib.import_module(f'{package}.{folder}'), name)
    except (ImportError, AttributeError) as error:
        raise DefinitionError(f'{type_name}: is not built on this machine') from error


def described(profile: QoSProfile) -> dict[str, Any]:
    """Return a profile as rosbag2 spells it since version 9."""
    return {
        'history': profile.history.name.lower(),
        'depth': profile.depth,
        'reliability': profile.reliability.name.lower(),
        'durability': profile.durability.name.lower(),
        'deadline': _duration(profile.deadline.nanoseconds),
        'lifespan': _duration(profile.lifespan.nanoseconds),
        'liveliness': profile.liveliness.name.lower(),
        'liveliness_lease_duration': _duration(profile.liveliness_lease_duration.nanoseconds),
        'avoid_ros_namespace_conventions': profile.avoid_ros_namespace_conventions,
    }


def _duration(nanoseconds: int) -> dict[str, int]:
    sec, nsec = divmod(nanoseconds, _NS_PER_S)
    return {'sec': sec, 'nsec': nsec}
