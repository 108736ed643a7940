# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics belong to the nodes that are recorded, also where the graph does not name all."""

from rclpy.topic_endpoint_info import TopicEndpointInfo

from vla_deploy.ros.recorded_topics import NO_NODE, topics_of_nodes

GUARD = '/arm', 'guard'


def endpoint(node, participant):
    namespace, name = node
    gid = [participant] * 12 + [0, 0, 19, 3]
    return TopicEndpointInfo(node_namespace=namespace, node_name=name, endpoint_gid=gid)


def test_when_nodes_are_recorded_expect_what_they_publish_or_hear_and_nothing_else():
    endpoints = {
        '/both': [endpoint(('/', 'driver'), 1), endpoint(GUARD, 2)],
        '/of_a_namesake': [endpoint(('/', 'guard'), 3)],
        '/of_nobody': [],
    }
    assert topics_of_nodes(endpoints, {GUARD}) == {'/both'}


def test_when_an_endpoint_has_no_node_expect_it_with_those_of_its_participant():
    endpoints = {
        '/known': [endpoint(GUARD, 2)],
        '/of_the_same': [endpoint(NO_NODE, 2)],
        '/of_another': [endpoint(NO_NODE, 4)],
        '/of_another_node_there': [endpoint(('/arm', 'driver'), 2)],
    }
    assert topics_of_nodes(endpoints, {GUARD}) == {'/known', '/of_the_same'}
