# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The action ExecuteInstruction: limits, feedback, cancel, replacement and errors with a code."""

import signal

import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from fake_robot import FakeRobot, grey_image
from inference_waits import HOLD, PATIENT, next_chunk
from lifecycle_msgs.msg import State
from rclpy.action import ActionClient

from vla_deploy.ros.conversions import duration_s
from vla_deploy_msgs.action import ExecuteInstruction
from vla_deploy_msgs.msg import GuardStatus

SUCCEEDED, ABORTED = GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_ABORTED
CANCELED = GoalStatus.STATUS_CANCELED
Result = ExecuteInstruction.Result


class Instructor:
    """An action client of the watcher: one goal after the other, with all that is heard of it."""

    def __init__(self, graph):
        self._graph = graph
        self.client = ActionClient(graph.node, ExecuteInstruction, 'execute_instruction')
        self.feedback = []

    def send(self, instruction='reach', max_duration_s=0.0, max_chunks=0):
        """Return the handle of a goal; not accepted while the node is inactive."""
        self._graph.wait(self.client.server_is_ready, 'the action server')
        whole, part = divmod(max_duration_s, 1.0)
        goal = ExecuteInstruction.Goal(
            instruction=instruction,
            max_duration=Duration(sec=int(whole), nanosec=int(part * 1e9)),
            max_chunks=max_chunks,
        )
        sent = self.client.send_goal_async(goal, lambda msg: self.feedback.append(msg.feedback))
        self._graph.wait(sent.done, 'an answer to the goal')
        return sent.result()

    def result(self, handle):
        """Return (status, result) of a goal, once it has ended."""
        future = handle.get_result_async()
        self._graph.wait(future.done, 'the result')
        return future.result().status, future.result().result

    def cancel(self, handle):
        future = handle.cancel_goal_async()
        self._graph.wait(future.done, 'an answer to the cancel')
        return future.result()


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


def test_when_the_guard_is_latched_expect_the_goal_to_end_at_once(
    shared_graph, robot, serve, instructor
):
    serve(goal_patience_s=3600.0)
    handle = instructor.send()
    robot.chunks_refused = 3
    robot.guard_state = GuardStatus.STATE_ESTOP_LATCHED
    status, result = instructor.result(handle)
    assert (status, result.error_code) == (ABORTED, Result.ERROR_GUARD)
    assert result.error_msg == 'the guard is ESTOP_LATCHED'
    assert result.chunks_refused == 3


def test_when_the_policy_is_not_finite_for_long_expect_the_code_of_the_policy(
    shared_graph, robot, serve, instructor, infinite_bundle
):
    serve(goal_patience_s=0.3, bundle=str(infinite_bundle), backend='onnx_runtime')
    _, result = instructor.result(instructor.send())
    assert result.error_code == Result.ERROR_POLICY
    assert 'not finite' in result.error_msg


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
