# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The inference node: what it needs for a chunk, and what it says when that is missing."""

import uuid

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from fake_robot import grey_image
from fr3_motion import HOME, JOINTS
from inference_waits import HOLD, next_chunk, wait_for_reason, wait_for_recovery
from lifecycle_msgs.msg import State
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from vla_deploy.pipeline import Observation, Policy
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import duration_s, time_msg, time_ns
from vla_deploy.ros.images import image_to_rgb
from vla_deploy_msgs.msg import GuardStatus

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


def test_when_chunks_are_sent_expect_the_percentiles_of_their_times_alone_and_none_configured_anew(
    shared_graph, robot, serve
):
    serve(instruction='reach', backend='onnx_runtime', inject_latency_ms=20.0)
    shared_graph.wait(lambda: len(shared_graph.chunks) >= 5, 'five chunks')
    assert shared_graph.trigger('inference/stop').success
    shared_graph.wait(
        lambda: shared_graph.policy.chunks == len(shared_graph.chunks), 'the status of the last'
    )
    status = shared_graph.policy
    told = [status.latency_p50_s, status.latency_p95_s, status.latency_p99_s]
    taken = [duration_s(chunk.inference_time) for chunk in shared_graph.chunks]
    assert min(taken) > 0.02
    assert told == pytest.approx(np.percentile(taken, (50, 95, 99)).tolist(), abs=1e-6)
    for transition in ('deactivate', 'cleanup', 'configure'):
        assert shared_graph.change_state('inference', transition)
    shared_graph.wait(lambda: shared_graph.policy.latency_p95_s == 0.0, 'no latency')


def test_when_it_serves_expect_a_diagnostic_that_is_ok(shared_graph, robot, serve):
    heard = shared_graph.listen(DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)
    serve(instruction='reach the red cube')
    next_chunk(shared_graph)

    def is_ok():
        entries = [entry for msg in heard for entry in msg.status]
        return any(e.name == 'inference: inference' and e.level == DiagnosticStatus.OK
                   for e in entries)

    shared_graph.wait(is_ok, 'a diagnostic of inference')


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


@pytest.mark.parametrize('stream', ['image/front', 'joint_states'])
def test_when_one_message_is_stamped_in_the_future_expect_chunks_before_that_time_comes(
    shared_graph, robot, serve, stream
):
    serve(instruction='reach')
    next_chunk(shared_graph)
    robot.stop()
    msg = {
        'image/front': grey_image(),
        'joint_states': JointState(name=robot.names, position=robot.position),
    }[stream]
    msg.header.stamp = time_msg(shared_graph.now_ns() + 3_600_000_000_000)
    with shared_graph.publisher(type(msg), stream, qos.SENSOR) as publisher:
        publisher.publish(msg)
        wait_for_reason(shared_graph, f'{stream}: newest message is stamped 3', 'in the future')
        robot.go_on()
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
    [
        (GuardStatus.STATE_FAULT, 'FAULT'),
        (GuardStatus.STATE_DISARMED, 'DISARMED'),
        (0, 'in state 0, which inference does not know'),
        (99, 'in state 99, which inference does not know'),
    ],
)
def test_when_the_guard_would_refuse_or_may_expect_no_chunk_and_its_state_as_the_reason(
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
