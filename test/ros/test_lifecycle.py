# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What is left of a node whose configure fails."""

import pytest
from lifecycle_msgs.msg import State
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import String

from vla_deploy.ros.lifecycle import ConfigureError, ManagedNode

TOPIC = '/left_over'


class Failing(ManagedNode):
    """Fails in the middle of `configure`."""

    error = None

    def configure(self):
        self.owned.append(self.create_publisher(String, TOPIC, 1))
        if self.error is not None:
            raise self.error

    def cleanup(self):
        self.destroy_owned()


@pytest.fixture
def node(context):
    made = Failing('failing', context=context)
    yield made
    made.destroy_node()


@pytest.mark.parametrize('error', [ConfigureError('no such file'), TypeError('a fault')])
def test_when_configure_fails_expect_nothing_left_and_the_next_one_to_work(node, error):
    node.error = error
    assert node.trigger_configure() != TransitionCallbackReturn.SUCCESS
    assert node.lifecycle_state == State.PRIMARY_STATE_UNCONFIGURED
    assert TOPIC not in {publisher.topic_name for publisher in node.publishers}
    node.error = None
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert [own.topic_name for own in node.publishers].count(TOPIC) == 1
