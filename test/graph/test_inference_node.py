# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The inference node: what it needs for a chunk, what it says when that is missing, and what each
of its parameters does. The robot and the guard are played by the watcher."""

import itertools
import uuid

import numpy as np
import pytest
from graph_harness import HOME, JOINTS, FakeRobot, grey_image
from lifecycle_msgs.msg import State
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Float32MultiArray, String

from vla_deploy.nodes.inference import InferenceNode
from vla_deploy.pipeline import Observation, Policy
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import duration_s, image_to_rgb, time_ns
from vla_deploy_msgs.msg import GuardStatus, PolicyStatus

HOLD = GuardStatus.STATE_HOLD
# On a busy machine the played robot may be late; what is too late is the subject of some tests.
PATIENT = {
    'image_max_age_s': 5.0,
    'joint_state_max_age_s': 5.0,
    'max_skew_s': 5.0,
    'execution_timeout_s': 5.0,
    'retry_s': 0.05,
}


@pytest.fixture
def robot(shared_graph):
    """A robot at rest whose guard would execute what comes."""
    robot = FakeRobot(shared_graph, ['front'], guard_state=HOLD)
    yield robot
    robot.leave()


@pytest.fixture
def serve(shared_graph, reach_bundle):
    """Return a function that configures and activates an inference node in this process."""
    nodes = []

    def start(**parameters):
        shared_graph.policies.clear()
        shared_graph.chunks.clear()
        given = {'bundle': str(reach_bundle), 'backend': 'stub', **PATIENT, **parameters}
        node = shared_graph.add_node(InferenceNode, **given)
        nodes.append(node)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        return node

    yield start
    for node in nodes:
        shared_graph.remove_node(node)


@pytest.fixture
def refuse(shared_graph, reach_bundle):
    """Return a function that gives the line with which configure or activate fails."""

    def start(**parameters):
        given = {'bundle': str(reach_bundle), 'backend': 'stub', **parameters}
        node = shared_graph.add_node(InferenceNode, **given)
        try:
            failure = TransitionCallbackReturn.FAILURE
            assert node.trigger_configure() == failure
            return node.configure_error
        finally:
            shared_graph.remove_node(node)

    return start


def next_chunk(graph):
    graph.chunks.clear()
    graph.wait(lambda: graph.chunks, 'a chunk')
    return graph.chunks[-1]


def wait_for_reason(graph, *parts):
    graph.wait(
        lambda: (
            graph.policy.health == PolicyStatus.HEALTH_DEGRADED
            and all(part in graph.policy.reason for part in parts)
        ),
        f'the reason {parts}',
    )


def wait_for_recovery(graph):
    next_chunk(graph)
    graph.wait(lambda: graph.policy.health == PolicyStatus.HEALTH_READY, 'the health ready')
    assert graph.policy.reason == ''


# -- what it needs --------------------------------------------------------------------------------


def test_when_all_is_there_expect_chunks_that_name_joints_model_and_observation(
    shared_graph, robot, serve, reach_bundle
):
    node = serve(instruction='reach the red cube', backend='onnx_runtime')
    chunk = next_chunk(shared_graph)
    policy = Policy.load(reach_bundle)
    assert list(chunk.joint_names) == list(JOINTS)
    assert chunk.model_sha256 == policy.model_sha256 == shared_graph.policy.model_sha256
    assert chunk.instruction == 'reach the red cube'
    assert list(chunk.anchor_position) == list(HOME)
    assert (chunk.steps, len(chunk.data)) == (16, 16 * 7)
    assert time_ns(chunk.observation_stamp) <= time_ns(chunk.sent_stamp)
    expected = policy.infer(
        Observation({'front': image_to_rgb(grey_image())}, HOME, chunk.instruction),
        noise_seed=chunk.noise_seed,
    )
    assert np.array_equal(np.reshape(chunk.data, (16, 7)), expected.actions)
    assert np.array_equal(np.reshape(chunk.raw, expected.raw.shape), expected.raw)
    assert node.lifecycle_state == State.PRIMARY_STATE_ACTIVE


def test_when_a_camera_changes_its_encoding_expect_it_named_no_chunk_and_recovery(
    shared_graph, robot, serve
):
    serve(instruction='reach')
    next_chunk(shared_graph)
    robot.images['front'] = grey_image('16UC1')
    wait_for_reason(shared_graph, 'image/front', '16UC1')
    sent = shared_graph.policy.chunks
    failures = shared_graph.policy.failures
    shared_graph.wait(lambda: shared_graph.policy.failures > failures, 'another failure')
    assert shared_graph.policy.chunks == sent
    robot.images['front'] = grey_image()
    wait_for_recovery(shared_graph)


def test_when_a_camera_goes_silent_expect_it_named_with_its_age_and_recovery(
    shared_graph, robot, serve
):
    serve(instruction='reach', image_max_age_s=0.5)
    next_chunk(shared_graph)
    image = robot.images.pop('front')
    wait_for_reason(shared_graph, 'image/front: newest message is', 's old')
    robot.images['front'] = image
    wait_for_recovery(shared_graph)


def test_when_a_stream_stays_away_expect_a_status_about_once_a_second_not_with_each_message(
    shared_graph, robot, serve
):
    serve(instruction='reach')
    robot.images.clear()
    wait_for_reason(shared_graph, 'image/front')
    statuses, states = len(shared_graph.policies), len(shared_graph.joint_states)
    shared_graph.wait_for_joint_states(100)
    assert len(shared_graph.joint_states) - states >= 100
    assert len(shared_graph.policies) - statuses < 50


def test_when_joint_states_go_silent_expect_them_named(shared_graph, robot, serve):
    serve(instruction='reach', joint_state_max_age_s=0.5)
    next_chunk(shared_graph)
    names, robot.names = robot.names, ['finger', *robot.names[1:]]
    wait_for_reason(shared_graph, 'joint_states: missing joint: fr3_joint1')
    robot.names = names
    wait_for_recovery(shared_graph)


def test_when_joint_states_are_permuted_with_extra_names_expect_the_same_state(
    shared_graph, robot, serve
):
    robot.names = ['finger', *reversed(JOINTS)]
    robot.position = [0.04, *reversed(HOME)]
    serve(instruction='reach')
    assert list(next_chunk(shared_graph).anchor_position) == list(HOME)


@pytest.mark.parametrize(
    ('state', 'said'),
    [(GuardStatus.STATE_FAULT, 'FAULT'), (GuardStatus.STATE_DISARMED, 'DISARMED')],
)
def test_when_the_guard_would_refuse_expect_no_chunk_and_its_state_as_the_reason(
    shared_graph, robot, serve, state, said
):
    robot.guard_state = state
    serve(instruction='reach')
    wait_for_reason(shared_graph, f'the guard is {said}')
    assert shared_graph.policy.chunks == 0
    robot.guard_state = HOLD
    wait_for_recovery(shared_graph)


def test_when_nothing_at_all_comes_in_expect_the_reason_all_the_same(shared_graph, serve):
    serve(instruction='reach')
    wait_for_reason(shared_graph, 'execution_state: the guard has not been heard')


def test_when_the_policy_is_not_finite_expect_the_chunk_sent_and_the_reason_in_the_status(
    shared_graph, robot, infinite_bundle, serve
):
    serve(instruction='reach', bundle=str(infinite_bundle), backend='onnx_runtime')
    wait_for_reason(shared_graph, 'the policy returned a value that is not finite')
    assert not np.isfinite(next_chunk(shared_graph).data).all()


# -- instructions ---------------------------------------------------------------------------------


@pytest.mark.parametrize('profile', [qos.INSTRUCTION_VOLATILE, qos.INSTRUCTION_LATCHED])
def test_when_an_instruction_is_published_expect_it_heard_once(
    shared_graph, robot, serve, profile
):
    serve()
    text = f'reach {uuid.uuid4()}'
    shared_graph.tell(text, profile)
    session = shared_graph.policy.session_id
    for _ in range(3):
        chunk = next_chunk(shared_graph)
        assert (chunk.instruction, chunk.session_id) == (text, session)


def test_when_an_instruction_was_latched_before_expect_it_heard(shared_graph, robot, serve):
    publisher = shared_graph.node.create_publisher(String, 'instruction', qos.INSTRUCTION_LATCHED)
    publisher.publish(String(data='reach early'))
    serve()
    assert next_chunk(shared_graph).instruction == 'reach early'
    shared_graph.node.destroy_publisher(publisher)


def test_when_another_instruction_comes_expect_a_new_session_and_none_of_the_old_after_it(
    shared_graph, robot, serve
):
    serve(instruction='reach red')
    first = next_chunk(shared_graph)
    shared_graph.tell('reach blue')
    shared_graph.wait(
        lambda: shared_graph.chunks[-1].instruction == 'reach blue', 'a chunk for the new text'
    )
    next_chunk(shared_graph)
    heard = [c.instruction for c in shared_graph.chunks]
    assert set(heard) == {'reach blue'}
    new = shared_graph.chunks[-1]
    assert new.session_id != first.session_id


def test_when_the_same_text_comes_again_while_it_runs_expect_the_session_to_go_on(
    shared_graph, robot, serve
):
    serve(instruction='reach red')
    first = next_chunk(shared_graph)
    shared_graph.tell('reach red')
    for _ in range(3):
        chunk = next_chunk(shared_graph)
    assert chunk.session_id == first.session_id
    assert chunk.seq > first.seq


@pytest.mark.parametrize('text', ['', '  \n'])
def test_when_the_instruction_is_blank_expect_refusal_with_the_reason_and_no_session(
    shared_graph, robot, serve, text
):
    serve()
    shared_graph.tell(text)
    wait_for_reason(shared_graph, 'instruction is empty')
    assert shared_graph.policy.session_id == ''
    assert shared_graph.chunks == []


def test_when_stopped_and_started_expect_no_chunk_and_then_a_new_session(
    shared_graph, robot, serve
):
    serve(instruction='reach red')
    first = next_chunk(shared_graph)
    assert shared_graph.trigger('inference/stop').success
    shared_graph.wait(lambda: shared_graph.policy.session_id == '', 'the session to end')
    sent = shared_graph.policy.chunks
    shared_graph.wait_for_joint_states(20)
    assert shared_graph.policy.chunks == sent
    assert shared_graph.trigger('inference/start').success
    second = next_chunk(shared_graph)
    assert second.instruction == 'reach red'
    assert second.session_id != first.session_id


def test_when_started_without_any_instruction_expect_the_reason_in_the_answer(
    shared_graph, robot, serve
):
    serve()
    answer = shared_graph.trigger('inference/start')
    assert not answer.success
    assert 'instruction is empty' in answer.message


# -- lifecycle ------------------------------------------------------------------------------------


def test_when_deactivated_expect_no_chunk_and_when_activated_again_chunks(
    shared_graph, robot, serve
):
    node = serve(instruction='reach')
    next_chunk(shared_graph)
    assert shared_graph.change_state('inference', 'deactivate')
    shared_graph.chunks.clear()
    shared_graph.wait_for_joint_states(20)
    assert shared_graph.chunks == []
    assert shared_graph.change_state('inference', 'activate')
    next_chunk(shared_graph)
    assert node.is_active


def test_when_cleaned_up_expect_no_publisher_and_when_configured_again_chunks(
    shared_graph, robot, serve
):
    serve(instruction='reach')
    assert shared_graph.change_state('inference', 'deactivate')
    assert shared_graph.change_state('inference', 'cleanup')
    shared_graph.wait(lambda: shared_graph.count_publishers('action_chunk') == 0, 'no publisher')
    for transition in ('configure', 'activate'):
        assert shared_graph.change_state('inference', transition)
    next_chunk(shared_graph)


def test_when_shut_down_expect_no_publisher_left_and_the_last_state_in_the_status(
    shared_graph, robot, serve
):
    serve(instruction='reach')
    next_chunk(shared_graph)
    assert shared_graph.change_state('inference', 'active_shutdown')
    shared_graph.wait(lambda: shared_graph.count_publishers('action_chunk') == 0, 'no publisher')
    shared_graph.wait(
        lambda: shared_graph.policy.lifecycle_state == State.PRIMARY_STATE_FINALIZED, 'finalized'
    )


# -- parameters: each changes something that can be observed ---------------------------------------


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
    chunk = next_chunk(shared_graph)
    first_sample_offset_ns = 100_000_000  # one period, as the contract of this policy says
    since_ns = time_ns(chunk.header.stamp) - time_ns(getattr(chunk, dated_from))
    assert since_ns == first_sample_offset_ns


@pytest.mark.parametrize('valid_s', [0.5, 2.0])
def test_when_chunk_valid_s_is_set_expect_it_in_valid_until(shared_graph, robot, serve, valid_s):
    serve(instruction='reach', chunk_valid_s=valid_s)
    chunk = next_chunk(shared_graph)
    assert time_ns(chunk.valid_until) - time_ns(chunk.sent_stamp) == round(valid_s * 1e9)


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
