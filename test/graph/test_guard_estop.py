# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Emergency stops by topic in a running guard: several sources, required ones, and their loss."""

import contextlib

import pytest
from fake_robot import FakeRobot
from fr3_motion import guard_parameters
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Bool

from vla_deploy.nodes.guard import GuardNode
from vla_deploy.ros import qos


@pytest.fixture
def robot(graph):
    made = FakeRobot(graph)
    yield made
    made.leave()


def wait_for_state(graph, state):
    graph.wait(lambda: graph.guard.state_name == state, state)


def say(graph, publisher, stops):
    """Publish, and let a tick pass; the execution state is sent at every tick."""
    heard = len(graph.executions)
    publisher.publish(Bool(data=stops))
    graph.wait(lambda: len(graph.executions) > heard + 20, '20 ticks')


def test_when_one_source_says_true_and_others_false_expect_the_stop_until_it_says_false(
    graph, robot
):
    graph.start_guard(estop_topics=['estop', 'door/estop'])
    wait_for_state(graph, 'HOLD')
    with contextlib.ExitStack() as stack:
        door, panel, other = (
            stack.enter_context(graph.publisher(Bool, topic, qos.ESTOP_LATCHED))
            for topic in ('door/estop', 'estop', 'estop')
        )
        say(graph, door, True)
        wait_for_state(graph, 'ESTOP_LATCHED')
        assert graph.guard.reason == "emergency stop: 'door/estop' is true"
        say(graph, panel, False)
        assert 'door/estop' in graph.trigger('guard/reset').message
        say(graph, door, False)
        graph.wait(lambda: graph.trigger('guard/reset').success, 'a reset')
        say(graph, panel, True)
        wait_for_state(graph, 'ESTOP_LATCHED')
        say(graph, other, False)
        assert 'it has 2 publishers' in graph.trigger('guard/reset').message
        assert graph.guard.estop_active
        graph.node.destroy_publisher(other)
        graph.wait(
            lambda: say(graph, panel, False) or graph.trigger('guard/reset').success, 'a reset'
        )


def test_when_configured_anew_under_an_emergency_stop_expect_it_latched_until_a_reset(graph, robot):
    graph.start_guard()
    wait_for_state(graph, 'HOLD')
    assert graph.trigger('guard/estop').success
    wait_for_state(graph, 'ESTOP_LATCHED')
    for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert graph.change_state('guard', transition)
    heard = len(graph.executions)
    graph.wait(lambda: len(graph.executions) > heard + 20, '20 ticks')
    assert graph.guard.state_name == 'ESTOP_LATCHED'
    assert not graph.trigger('guard/arm').success
    assert graph.trigger('guard/reset').success
    graph.wait(lambda: graph.trigger('guard/arm').success, 'it to be armed again')


def test_when_a_source_is_required_expect_no_arming_before_it_and_a_stop_when_it_leaves(
    graph, robot
):
    graph.start_guard(estop_required=True)
    graph.wait(lambda: graph.guard.lifecycle_state == 3, 'the guard to be active')
    assert 'nothing was heard on' in graph.trigger('guard/arm').message
    assert graph.guard.state_name == 'DISARMED'
    with graph.publisher(Bool, 'estop', qos.ESTOP_VOLATILE) as panel:
        panel.publish(Bool(data=False))
        wait_for_state(graph, 'HOLD')
    wait_for_state(graph, 'ESTOP_LATCHED')
    assert graph.guard.reason == "emergency stop: the publisher of 'estop' is gone"
    assert not graph.trigger('guard/reset').success


def test_when_a_required_source_falls_silent_expect_a_stop(graph, robot):
    graph.start_guard(estop_required=True, estop_timeout_s=0.5)
    with graph.publisher(Bool, 'estop', qos.ESTOP_VOLATILE) as panel:
        beat = graph.node.create_timer(0.05, lambda: panel.publish(Bool(data=False)))
        wait_for_state(graph, 'HOLD')
        graph.node.destroy_timer(beat)
        wait_for_state(graph, 'ESTOP_LATCHED')
    assert "emergency stop: 'estop' was silent for 0.5" in graph.guard.reason


@pytest.mark.parametrize(
    ('parameters', 'said'),
    [
        ({'estop_topics': ['estop', 'estop']}, 'name at least one topic, each once'),
        ({'estop_timeout_s': 0.5}, 'estop_timeout_s is 0.5, but estop_required is false'),
    ],
)
def test_when_the_sources_contradict_each_other_expect_configure_to_fail_naming_it(
    shared_graph, parameters, said
):
    given = {**guard_parameters(), 'autostart': False, 'sched_fifo_priority': 0, **parameters}
    guard = shared_graph.add_node(GuardNode, **given)
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert said in guard.configure_error
    finally:
        shared_graph.remove_node(guard)
