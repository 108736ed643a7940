# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A message that is said once is taken, whichever subscription has heard it."""

import time

import pytest
import rclpy
from rclpy.context import Context
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from std_msgs.msg import Bool

from vla_deploy.ros import qos
from vla_deploy.ros.recorded_topics import RecordedTopics

TOPIC = '/said_once'
WaitSet = rclpy_implementation.WaitSet


@pytest.fixture
def nodes():
    """The recorder's node, and one of another participant."""
    contexts = [Context(), Context()]
    for context in contexts:
        rclpy.init(context=context)
    made = [Node(name, context=c) for name, c in zip(('recorder', 'other'), contexts, strict=True)]
    yield made
    for node, context in zip(made, contexts, strict=True):
        node.destroy_node()
        rclpy.shutdown(context=context)


def until(holds):
    end_s = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def waits_in(subscription, node):
    """Whether a message waits to be taken, which looking does not take."""
    with subscription.handle:
        waiting = WaitSet(1, 0, 0, 0, 0, 0, node.context.handle)
        waiting.clear_entities()
        index = waiting.add_subscription(subscription.handle)
        waiting.wait(0)
        return waiting.is_ready('subscription', index)


def test_when_a_reliable_publisher_says_one_thing_before_the_next_scan_expect_it_taken_once(nodes):
    recorder, other = nodes
    taken = []
    topics = RecordedTopics(recorder, [], [TOPIC], True, lambda topic, *_: taken.append(topic.name),
                            lambda *_: None)  # fmt: skip
    listener = other.create_subscription(Bool, TOPIC, lambda _: None, qos.COMMAND)
    until(lambda: topics.scan() or list(recorder.subscriptions))
    (early,) = recorder.subscriptions  # nobody publishes: it is best effort
    publisher = other.create_publisher(Bool, TOPIC, qos.COMMAND)
    until(lambda: publisher.get_subscription_count() == 2)
    publisher.publish(Bool(data=True))
    with listener.handle:
        until(lambda: listener.handle.take_message(Bool, False) is not None)
    until(lambda: waits_in(early, recorder))
    until(lambda: topics.scan() or early not in recorder.subscriptions)
    topics.poll()
    assert taken == [TOPIC]
    assert len(list(recorder.subscriptions)) == 1


def test_when_something_is_said_just_after_the_scan_expect_the_old_subscription_still_there(nodes):
    recorder, other = nodes
    topics = RecordedTopics(recorder, [], [TOPIC], True, lambda *_: None, lambda *_: None)
    other.create_subscription(Bool, TOPIC, lambda _: None, qos.COMMAND)
    until(lambda: topics.scan() or list(recorder.subscriptions))
    (early,) = recorder.subscriptions
    other.create_publisher(Bool, TOPIC, qos.COMMAND)
    until(lambda: topics.scan() or len(list(recorder.subscriptions)) == 2)
    assert early in recorder.subscriptions
    topics.scan()
    assert early not in recorder.subscriptions
