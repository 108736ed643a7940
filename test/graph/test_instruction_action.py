# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The action ExecuteInstruction: limits, feedback, cancel, replacement and errors with a code."""

import signal

import pytest
from action_msgs.msg import GoalStatus
from fake_robot import FakeRobot, grey_image
from fr3_motion import LIMITS, URDF
from inference_waits import HOLD, PATIENT, Instructor, next_chunk, wait_for_reason
from lifecycle_msgs.msg import State
from tokenizers import Tokenizer

from vla_deploy.ros.conversions import duration_s
from vla_deploy_msgs.action import ExecuteInstruction
from vla_deploy_msgs.msg import GuardStatus
from vla_deploy_msgs.srv import GetActionChunk

SUCCEEDED, ABORTED = GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_ABORTED
CANCELED = GoalStatus.STATUS_CANCELED
Result = ExecuteInstruction.Result


@pytest.fixture
def instructor(shared_graph):
    made = Instructor(shared_graph)
    yield made
    made.client.destroy()


def test_when_the_chunks_are_up_expect_success_with_their_count(
    shared_graph, robot, serve, instructor
):
    serve()
    handle = instructor.send(max_chunks=2)
    status, result = instructor.result(handle)
    assert (status, result.termination_reason) == (SUCCEEDED, 'max_chunks')
    assert (result.error_code, result.error_msg) == (Result.ERROR_NONE, '')
    assert result.chunks_sent == 2
    assert {chunk.instruction for chunk in shared_graph.chunks} == {'reach'}
    goal_id = bytes(handle.goal_id.uuid).hex()  # by which a trace finds how the session ended
    assert {chunk.session_id for chunk in shared_graph.chunks} == {goal_id}
    assert len(shared_graph.chunks) == 2


def test_when_the_time_is_up_expect_success_feedback_and_the_session_ended(
    shared_graph, robot, serve, instructor
):
    serve(retry_s=0.05)
    shared_graph.ends.clear()
    status, result = instructor.result(instructor.send(max_duration_s=0.9))
    assert (status, result.termination_reason) == (SUCCEEDED, 'max_duration')
    assert duration_s(result.elapsed) >= 0.9
    assert result.chunks_sent > 1
    elapsed = [duration_s(feedback.elapsed) for feedback in instructor.feedback]
    assert elapsed == sorted(elapsed)
    last = instructor.feedback[-1]
    assert last.chunks >= 1
    assert last.guard_state == GuardStatus.STATE_HOLD
    assert duration_s(last.latency) > 0.0
    shared_graph.wait(lambda: shared_graph.ends, 'the end of the session')
    assert shared_graph.ends[0].session_id == shared_graph.chunks[0].session_id


def test_when_a_plan_runs_expect_what_is_left_of_it_in_the_feedback(
    shared_graph, robot, serve, instructor
):
    serve()
    handle = instructor.send()
    chunk = next_chunk(shared_graph)
    robot.plan = (chunk.session_id, chunk.seq, 6)
    instructor.feedback.clear()
    shared_graph.wait(
        lambda: any(f.queue_depth == chunk.steps - 6 for f in instructor.feedback), 'the depth'
    )
    instructor.cancel(handle)


def test_when_cancelled_expect_the_end_told_to_the_guard_and_no_chunk_after_it(
    shared_graph, robot, serve, instructor
):
    serve(retry_s=0.05)
    handle = instructor.send()
    session = next_chunk(shared_graph).session_id
    shared_graph.ends.clear()
    assert len(instructor.cancel(handle).goals_canceling) == 1
    status, result = instructor.result(handle)
    assert (status, result.termination_reason) == (CANCELED, 'cancelled')
    shared_graph.wait(lambda: shared_graph.ends, 'the end of the session')
    assert [end.session_id for end in shared_graph.ends] == [session]
    shared_graph.chunks.clear()
    shared_graph.wait_for_joint_states(20)
    assert shared_graph.chunks == []


def test_when_another_goal_comes_expect_it_to_replace_the_running_one(
    shared_graph, robot, serve, instructor
):
    serve()
    first = instructor.send('reach red')
    next_chunk(shared_graph)
    second = instructor.send('reach blue', max_chunks=1)
    status, result = instructor.result(first)
    assert (status, result.termination_reason, result.error_code) == (ABORTED, 'replaced', 0)
    assert result.chunks_sent >= 1
    assert instructor.result(second)[0] == SUCCEEDED
    assert shared_graph.chunks[-1].instruction == 'reach blue'


def test_when_an_instruction_comes_on_the_topic_expect_the_goal_replaced(
    shared_graph, robot, serve, instructor
):
    serve()
    handle = instructor.send('reach red')
    shared_graph.tell('reach green')
    assert instructor.result(handle)[1].termination_reason == 'replaced'


def test_when_stopped_by_the_service_expect_the_goal_cancelled(
    shared_graph, robot, serve, instructor
):
    serve()
    handle = instructor.send()
    assert shared_graph.trigger('inference/stop').success
    assert instructor.result(handle)[1].termination_reason == 'cancelled'


@pytest.mark.parametrize(('text', 'said'), [('', 'empty'), ('x' * 10_000, '10000 characters')])
def test_when_the_instruction_is_none_expect_its_code_and_the_running_goal_to_go_on(
    shared_graph, robot, serve, instructor, text, said
):
    serve()
    running = instructor.send('reach red')
    next_chunk(shared_graph)
    status, result = instructor.result(instructor.send(text))
    assert (status, result.error_code) == (ABORTED, Result.ERROR_INSTRUCTION)
    assert said in result.error_msg
    assert next_chunk(shared_graph).instruction == 'reach red'
    instructor.cancel(running)


def test_when_the_policy_lacks_a_token_of_the_text_expect_the_code_of_the_instruction(
    shared_graph, robot, serve, instructor, changed_bundle
):
    def change(folder):
        path = str(folder / 'tokenizer.json')
        tokenizer = Tokenizer.from_file(path)
        tokenizer.add_special_tokens(['<picture>'])
        tokenizer.save(path)

    serve(bundle=str(changed_bundle(change)), backend='onnx_runtime', breaker_failures=1,
          urdf_path=str(URDF), limits_path=str(LIMITS))  # fmt: skip
    status, result = instructor.result(instructor.send('reach <picture>'))
    assert (status, result.error_code) == (ABORTED, Result.ERROR_INSTRUCTION)
    assert result.error_msg.startswith("instruction: '<picture>' is token 19, but the policy knows")
    request = GetActionChunk.Request(instruction='<picture>')
    answer = shared_graph.call(GetActionChunk, 'get_action_chunk', request)
    assert answer.error_code == GetActionChunk.Response.ERROR_INSTRUCTION
    assert answer.error_msg == result.error_msg
    assert instructor.result(instructor.send(max_chunks=1))[0] == SUCCEEDED
    assert shared_graph.policy.breaker == 'closed'


def test_when_a_stream_stays_away_expect_the_goal_to_end_with_its_name_after_the_patience(
    shared_graph, robot, serve, instructor
):
    serve(goal_patience_s=0.5, image_max_age_s=0.3)
    robot.images.clear()
    status, result = instructor.result(instructor.send())
    assert (status, result.error_code) == (ABORTED, Result.ERROR_OBSERVATION)
    assert result.error_msg.startswith('image/front')
    assert duration_s(result.elapsed) >= 0.5
    robot.images['front'] = grey_image()


def test_when_no_recorder_comes_that_is_waited_for_expect_the_goal_to_end_inactive(
    robot, serve, instructor
):
    serve(goal_patience_s=0.5, wait_for_recorder=True)
    status, result = instructor.result(instructor.send())
    assert (status, result.error_code) == (ABORTED, Result.ERROR_INACTIVE)
    assert result.error_msg.startswith('wait_for_recorder: no node named recorder')


def test_when_a_goal_ends_with_an_error_expect_the_status_ready_without_its_reason(
    shared_graph, robot, serve, instructor
):
    serve(goal_patience_s=0.5)
    image = robot.images.pop('front')
    handle = instructor.send()
    wait_for_reason(shared_graph, 'image/front: no image yet')
    assert instructor.result(handle)[1].error_code == Result.ERROR_OBSERVATION
    shared_graph.wait(lambda: shared_graph.policy.health_name == 'ready', 'the health ready')
    assert (shared_graph.policy.reason, shared_graph.policy.session_id) == ('', '')
    robot.images['front'] = image


def test_when_stopped_while_a_chunk_is_late_expect_no_reason_afterwards(
    shared_graph, robot, serve
):
    node = serve(
        backend='onnx_runtime', instruction='reach', deadline_ms=400.0, inject_latency_ms=700.0
    )
    shared_graph.wait(lambda: node.loop.computing, 'an inference')
    assert shared_graph.trigger('inference/stop').success
    shared_graph.wait(lambda: not node.loop.computing, 'its end')
    shared_graph.wait(lambda: shared_graph.policy.deadline_misses, 'the miss to be counted')
    assert (shared_graph.policy.health_name, shared_graph.policy.reason) == ('ready', '')


def test_when_a_stream_was_late_and_the_chunk_takes_longer_than_the_patience_expect_it_sent(
    shared_graph, robot, serve, instructor
):
    serve(backend='onnx_runtime', goal_patience_s=1.0, inject_latency_ms=1500.0)
    image = robot.images.pop('front')
    handle = instructor.send(max_chunks=1)
    wait_for_reason(shared_graph, 'image/front: no image yet')
    robot.images['front'] = image
    status, result = instructor.result(handle)
    assert (status, result.termination_reason, result.error_msg) == (SUCCEEDED, 'max_chunks', '')
    assert duration_s(result.elapsed) >= 1.5


def test_when_a_goal_gives_a_negative_time_expect_it_refused_and_the_running_one_to_go_on(
    shared_graph, robot, serve, instructor
):
    serve()
    running = instructor.send()
    _, result = instructor.result(instructor.send(max_duration_s=-5.0))
    assert result.error_code == Result.ERROR_INSTRUCTION
    assert result.error_msg == 'max_duration is -5 s; give 0 for no limit'
    assert running.status == GoalStatus.STATUS_EXECUTING
    running.cancel_goal_async()
    assert instructor.result(running)[1].termination_reason == 'cancelled'


@pytest.mark.parametrize(
    ('state', 'named'),
    [(GuardStatus.STATE_ESTOP_LATCHED, 'ESTOP_LATCHED'), (GuardStatus.STATE_FAULT, 'FAULT')],
    ids=['estop', 'fault'],
)
def test_when_the_guard_is_latched_expect_the_goal_to_end_at_once(
    shared_graph, robot, serve, instructor, state, named
):
    serve(goal_patience_s=3600.0)
    handle = instructor.send()
    robot.chunks_refused = 3
    robot.guard_state = state
    status, result = instructor.result(handle)
    assert (status, result.error_code) == (ABORTED, Result.ERROR_GUARD)
    assert result.error_msg == f'the guard is {named}'
    assert result.chunks_refused == 3


@pytest.mark.parametrize(
    ('state', 'named'),
    [
        (GuardStatus.STATE_DISARMED, 'the guard is DISARMED'),
        (None, 'execution_state: the guard has been silent for'),
    ],
    ids=['disarmed', 'silent'],
)
def test_when_the_guard_would_not_execute_expect_its_code_after_the_patience(
    shared_graph, robot, serve, instructor, state, named
):
    serve(goal_patience_s=0.5, execution_timeout_s=0.5)
    handle = instructor.send()
    next_chunk(shared_graph)
    robot.guard_state = state
    status, result = instructor.result(handle)
    assert (status, result.error_code) == (ABORTED, Result.ERROR_GUARD)
    assert result.error_msg.startswith(named)
    assert duration_s(result.elapsed) >= 0.5
    assert result.chunks_sent >= 1


@pytest.mark.parametrize(
    ('parameters', 'said'),
    [
        ({}, 'the policy returned a value that is not finite'),
        ({'breaker_failures': 1, 'breaker_open_s': 60.0}, 'policy left alone: inference failed 1'),
    ],
    ids=['not finite', 'left alone'],
)
def test_when_the_policy_fails_for_long_expect_its_code(
    shared_graph, robot, serve, instructor, infinite_bundle, parameters, said
):
    given = {'goal_patience_s': 0.5, 'breaker_failures': 1000, **parameters}
    serve(bundle=str(infinite_bundle), backend='onnx_runtime', **given)
    status, result = instructor.result(instructor.send())
    assert (status, result.error_code) == (ABORTED, Result.ERROR_POLICY)
    assert said in result.error_msg
    assert duration_s(result.elapsed) >= 0.5


def test_when_each_deadline_is_missed_expect_the_code_of_the_policy(
    shared_graph, robot, serve, instructor
):
    serve(
        backend='onnx_runtime', deadline_ms=50.0, inject_latency_ms=200.0, goal_patience_s=0.5
    )
    status, result = instructor.result(instructor.send())
    assert (status, result.error_code) == (ABORTED, Result.ERROR_POLICY)
    assert result.error_msg.startswith('deadline: given up before step')
    assert (result.chunks_sent, shared_graph.policy.breaker) == (0, 'closed')


def test_when_inactive_expect_goals_refused_and_a_running_one_ended_with_its_code(
    shared_graph, robot, serve, instructor
):
    node = serve()
    handle = instructor.send()
    assert shared_graph.change_state('inference', 'deactivate')
    status, result = instructor.result(handle)
    assert (status, result.error_code) == (ABORTED, Result.ERROR_INACTIVE)
    assert not instructor.send().accepted
    assert instructor.cancel(handle) is not None
    assert node.lifecycle_state == State.PRIMARY_STATE_INACTIVE


def test_when_the_process_is_asked_to_end_expect_the_goal_answered_with_its_code_first(
    graph, reach_bundle
):
    robot, instructor = FakeRobot(graph, ['front'], guard_state=HOLD), Instructor(graph)
    process = graph.start_inference(reach_bundle, backend='stub', **PATIENT)
    graph.wait(
        lambda: graph.policy.lifecycle_state == State.PRIMARY_STATE_ACTIVE, 'inference to be active'
    )
    result = instructor.send().get_result_async()
    next_chunk(graph)
    process.send(signal.SIGINT)
    graph.wait(result.done, 'the result')
    assert result.result().result.error_code == Result.ERROR_INACTIVE
    assert graph.wait_for_exit(process) == 0
    robot.leave()
