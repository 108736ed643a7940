# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The inference node: each of its parameters changes something that can be observed."""

import itertools

import pytest
from fr3_motion import JOINTS
from inference_waits import listeners, next_chunk, wait_for_reason
from lifecycle_msgs.msg import State
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from std_msgs.msg import Float32MultiArray

from vla_deploy.nodes.inference import InferenceNode
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import duration_s, time_ns
from vla_deploy_msgs.msg import ActionChunk


@pytest.mark.parametrize(
    ('parameters', 'named'),
    [
        ({'bundle': ''}, "parameter 'bundle' is empty"),
        ({'bundle': '/nowhere/bundle'}, '/nowhere/bundle'),
        ({'backend': 'abacus'}, 'abacus'),
        ({'backend': 'onnx_runtime', 'provider': 'abacus'}, 'abacus'),
        ({'backend': 'onnx_runtime', 'precision': 'fp3'}, 'fp3'),
        ({'backend': 'onnx_runtime', 'variant': 'whole'}, 'whole'),
        ({'joint_names': ['elbow']}, 'joint'),
        ({'period_s': 0.3}, 'period_s'),
        ({'joint_state_topics': ['a-b']}, "parameter 'joint_state_topics': 'a-b' is no name of a"),
    ],
)
def test_when_a_parameter_cannot_be_met_expect_configure_to_fail_naming_it(
    refuse, parameters, named
):
    line = refuse(**parameters)
    assert named in line
    assert '\n' not in line


@pytest.mark.parametrize(
    ('parameters', 'named'),
    [
        ({'instruction': '  '}, "parameter 'instruction': instruction is empty"),
        ({'instruction': 'x' * 9, 'instruction_max_length': 8}, 'more than 8'),
    ],
)
def test_when_the_instruction_parameter_is_refused_expect_activate_to_fail_naming_it(
    shared_graph, reach_bundle, parameters, named, capfd
):
    node = shared_graph.add_node(
        InferenceNode, bundle=str(reach_bundle), backend='stub', **parameters
    )
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
        assert node.lifecycle_state == State.PRIMARY_STATE_INACTIVE
    finally:
        shared_graph.remove_node(node)
    assert named in capfd.readouterr().err


def test_when_the_backend_is_the_stub_expect_its_value_and_name(shared_graph, robot, serve):
    serve(instruction='reach', backend='stub', stub_value=0.25)
    assert set(next_chunk(shared_graph).data) == {0.25}
    assert shared_graph.policy.backend == 'stub'


def test_when_blank_is_allowed_expect_chunks_for_a_blank_instruction(shared_graph, robot, serve):
    serve(allow_blank_instruction=True, instruction=' ')
    assert next_chunk(shared_graph).instruction == ' '


def test_when_the_instruction_is_longer_than_allowed_expect_both_lengths(
    shared_graph, robot, serve
):
    serve(instruction_max_length=10)
    shared_graph.tell('reach the red cube')
    wait_for_reason(shared_graph, '18 characters, more than 10')


@pytest.mark.parametrize(
    ('anchor', 'moving', 'dated_from'),
    [
        ('arrival', True, 'sent_stamp'),
        ('observation', True, 'observation_stamp'),
        ('observation', False, 'sent_stamp'),
    ],
)
def test_when_anchor_is_set_expect_sample_0_dated_from_it_and_from_rest_from_the_sending(
    shared_graph, robot, serve, anchor, moving, dated_from
):
    robot.plan = ('earlier', 0, 1) if moving else None
    serve(instruction='reach', anchor=anchor)
    first_sample_offset_ns = 100_000_000  # one period, as the contract of this policy says

    def dated_as_expected(chunk):
        since_ns = time_ns(chunk.header.stamp) - time_ns(getattr(chunk, dated_from))
        return since_ns == first_sample_offset_ns

    # One whose observation was more than a period old is put off: nothing is consumed here.
    shared_graph.wait(lambda: any(map(dated_as_expected, shared_graph.chunks)), 'such a chunk')


@pytest.mark.parametrize('valid_s', [0.5, 2.0])
def test_when_chunk_valid_s_is_set_expect_it_in_valid_until(shared_graph, robot, serve, valid_s):
    serve(instruction='reach', chunk_valid_s=valid_s)
    chunk = next_chunk(shared_graph)
    assert time_ns(chunk.valid_until) - time_ns(chunk.sent_stamp) == round(valid_s * 1e9)


@pytest.fixture
def listen(shared_graph):
    """Return a function that makes a recorder of chunks of this name; it is taken away again."""
    nodes = []

    def start(name, profile):
        nodes.append(Node(name, context=shared_graph.context))
        nodes[-1].create_subscription(ActionChunk, 'action_chunk', lambda _: None, profile)
        return nodes[-1]

    yield start
    for node in nodes:
        node.destroy_node()


@pytest.mark.parametrize('name', ['recorder', 'rosbag2_recorder'])
def test_when_it_waits_for_a_recorder_expect_no_chunk_before_one_hears_them_reliably(
    shared_graph, robot, serve, listen, name
):
    serve(instruction='reach', wait_for_recorder=True)
    wait_for_reason(shared_graph, 'wait_for_recorder: no node named', name, '/action_chunk')
    listen(name, qos.SENSOR)  # as one does that does not know of the publisher yet
    wait_for_reason(shared_graph, 'wait_for_recorder: the recorder hears /action_chunk by best')
    sent = len(shared_graph.chunks)
    listen(name, qos.CHUNK)
    next_chunk(shared_graph)
    assert sent == 0


def test_when_the_recorder_leaves_expect_chunks_to_go_on_until_it_is_configured_again(
    shared_graph, robot, serve, listen
):
    recorder = listen('recorder', qos.CHUNK)
    node = serve(instruction='reach', wait_for_recorder=True)
    next_chunk(shared_graph)
    recorder.destroy_node()
    shared_graph.wait(
        lambda: 'recorder' not in listeners(shared_graph, '/action_chunk'), 'the recorder to go'
    )
    next_chunk(shared_graph)
    for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert getattr(node, f'trigger_{transition}')() == TransitionCallbackReturn.SUCCESS
    wait_for_reason(shared_graph, 'wait_for_recorder')


def test_when_noise_seed_is_set_expect_it_counted_up_and_the_same_noise_again(
    shared_graph, robot, serve
):
    serve(instruction='reach', noise_seed=40)
    shared_graph.wait(lambda: len(shared_graph.chunks) >= 3, 'three chunks')
    assert [c.noise_seed for c in shared_graph.chunks[:3]] == [40, 41, 42]


def test_when_noise_seed_is_not_set_expect_another_with_each_chunk(shared_graph, robot, serve):
    serve(instruction='reach')
    shared_graph.wait(lambda: len(shared_graph.chunks) >= 3, 'three chunks')
    assert len({c.noise_seed for c in shared_graph.chunks}) >= 3


def test_when_retry_s_is_longer_expect_chunks_farther_apart(shared_graph, robot, serve):
    def shortest_gap_s(retry_s):
        node = serve(instruction='reach', retry_s=retry_s)
        shared_graph.wait(lambda: len(shared_graph.chunks) >= 4, 'four chunks')
        sent = [time_ns(c.sent_stamp) for c in shared_graph.chunks]
        node.trigger_deactivate()
        return min(b - a for a, b in itertools.pairwise(sent)) * 1e-9

    assert shortest_gap_s(0.5) >= 0.5
    assert shortest_gap_s(0.05) < 0.5


@pytest.mark.parametrize(('execute_steps', 'due_at'), [(3, 3), (0, 16)])
def test_when_execute_steps_is_set_expect_the_next_chunk_after_so_many_samples(
    shared_graph, robot, serve, execute_steps, due_at
):
    serve(instruction='reach', execute_steps=execute_steps, retry_s=60.0)
    first = next_chunk(shared_graph)
    robot.plan = (first.session_id, first.seq, due_at - 1)
    shared_graph.wait_for_joint_states(20)
    assert shared_graph.chunks == [first]
    robot.plan = (first.session_id, first.seq, due_at)
    shared_graph.wait(lambda: len(shared_graph.chunks) == 2, 'the next chunk')
    assert shared_graph.chunks[-1].seq == first.seq + 1


def test_when_the_guard_is_silent_for_execution_timeout_s_expect_the_reason(
    shared_graph, robot, serve
):
    serve(instruction='reach', execution_timeout_s=0.5)
    next_chunk(shared_graph)
    robot.guard_state = None
    wait_for_reason(shared_graph, 'execution_state: the guard has been silent')


def test_when_parts_are_farther_apart_than_max_skew_s_expect_the_late_one_named(
    shared_graph, robot, serve
):
    robot.image_delay_s = 1.0
    serve(instruction='reach', max_skew_s=0.5)
    wait_for_reason(shared_graph, 'joint_states', 'away from the images, more than 0.5')


def test_when_actions_are_wanted_flat_expect_the_same_numbers_with_their_layout(
    shared_graph, robot, serve
):
    flats = shared_graph.listen(Float32MultiArray, 'inference/action_chunk_flat', qos.CHUNK)
    serve(instruction='reach', stub_value=0.25)
    shared_graph.wait(lambda: flats, 'a flat chunk')
    assert [(d.label, d.size) for d in flats[0].layout.dim] == [('steps', 16), ('joints', 7)]
    assert set(flats[0].data) == {0.25}


def test_when_the_bundle_names_neither_joints_nor_period_expect_them_from_the_parameters(
    shared_graph, robot, serve, refuse, silent_bundle
):
    assert "parameter 'joint_names'" in refuse(bundle=str(silent_bundle))
    assert "parameter 'period_s'" in refuse(bundle=str(silent_bundle), joint_names=list(JOINTS))
    serve(bundle=str(silent_bundle), joint_names=list(JOINTS), period_s=0.25, instruction='reach')
    chunk = next_chunk(shared_graph)
    assert list(chunk.joint_names) == list(JOINTS)
    assert duration_s(chunk.period) == 0.25
