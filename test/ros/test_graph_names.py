# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A name that ROS refuses is named with what it was given by, before anything is made for it."""

from types import SimpleNamespace

import pytest
from rclpy.node import Node

from vla_deploy.core.parameter import ParameterError
from vla_deploy.pipeline.inference_config import InferenceConfig
from vla_deploy.ros.graph_names import check_topics
from vla_deploy.ros.observation_streams import ObservationStreams


@pytest.fixture
def node(context):
    node = Node('node', context=context)
    yield node
    node.destroy_node()


@pytest.mark.parametrize('name', ['/estop/', 'a b', 'a-b', '', 'a//b', '1st', '{arm}/estop'])
def test_when_ros_refuses_a_topic_expect_the_parameter_and_the_name(node, name):
    config = SimpleNamespace(states=['joint_states'], topics=['estop', name])
    with pytest.raises(ParameterError) as error:
        check_topics(node, config, 'states', 'topics')
    assert str(error.value).startswith(f"parameter 'topics': {name!r} is no name of a topic: ")
    assert '\n' not in str(error.value)


def test_when_topics_are_private_or_in_a_namespace_expect_them_taken(node):
    config = SimpleNamespace(topics=['estop', '/arm/estop', '~/estop', '{node}/estop'])
    check_topics(node, config, 'topics')


def test_when_a_policy_has_a_camera_that_no_topic_can_have_expect_it_named_and_nothing_heard(node):
    contract = SimpleNamespace(
        camera_names=('front', 'front-left'), state=SimpleNamespace(joints=('a',))
    )
    before = [subscription.topic_name for subscription in node.subscriptions]
    with pytest.raises(ParameterError, match="'bundle': 'image/front-left' is no name of a topic"):
        ObservationStreams(node, contract, InferenceConfig(), lambda: None)
    assert [subscription.topic_name for subscription in node.subscriptions] == before
