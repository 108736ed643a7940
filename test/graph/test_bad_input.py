# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot, a camera or a person may send to the process of inference: an error names it,
nothing is executed, the process lives on, and what is good again is served again."""

import pytest
from fake_robot import FakeRobot, grey_image
from fr3_motion import HOME, JOINTS, LIMITS, URDF
from inference_waits import (
    HOLD,
    PATIENT,
    Instructor,
    next_chunk,
    wait_for_reason,
    wait_for_recovery,
)
from sensor_msgs.msg import Image
from std_msgs.msg import String

from vla_deploy.ros import qos
from vla_deploy_msgs.action import ExecuteInstruction
from vla_deploy_msgs.srv import GetActionChunk

GOOD = {'height': 64, 'width': 64, 'encoding': 'rgb8', 'step': 192, 'data': bytes(64 * 192)}


@pytest.fixture(scope='module')
def process(shared_graph, reach_bundle):
    """The process of inference, which all tests of this file share: it must outlive each."""
    given = {**PATIENT, 'joint_state_max_age_s': 0.5, 'urdf_path': str(URDF),
             'limits_path': str(LIMITS)}  # fmt: skip
    return shared_graph.start_inference(
        reach_bundle, backend='stub', instruction='reach', **given
    )


@pytest.fixture
def robot(shared_graph, process):
    """A robot to whom chunks are sent before the test and after it, by the same process."""
    robot = FakeRobot(shared_graph, ['front'], guard_state=HOLD)
    wait_for_recovery(shared_graph)
    yield robot
    robot.images['front'] = grey_image()
    robot.names, robot.position = list(JOINTS), list(HOME)
    wait_for_recovery(shared_graph)
    assert process.exit_code is None
    robot.leave()


@pytest.fixture
def assert_no_chunk(shared_graph):
    """Return a function that asserts that none is sent while the robot goes on to send."""

    def check():
        shared_graph.wait_for_joint_states(5)  # one that was under way has come
        sent = len(shared_graph.chunks)
        shared_graph.wait_for_joint_states(25)  # 10 times as long as a chunk takes to be due
        assert len(shared_graph.chunks) == sent

    return check


@pytest.fixture
def instructor(shared_graph):
    made = Instructor(shared_graph)
    yield made
    made.client.destroy()


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'data': b''}, 'data has 0 bytes'),
        ({'step': 100}, 'step is 100'),
        ({'step': 200}, 'with step 200 takes 12800'),
        ({'encoding': 'bgra8', 'step': 256}, 'bgra8 with step 256 takes 16384'),
        ({'width': 65}, 'step is 192'),
        ({'encoding': 'nonsense'}, "'nonsense' is none of"),
    ],
    ids=['0 bytes', 'step too small', 'step too large', 'encoding', 'width', 'unknown'],
)
def test_when_an_image_is_malformed_expect_its_stream_named_and_no_chunk(
    shared_graph, robot, assert_no_chunk, change, named
):
    failures = shared_graph.policy.failures
    robot.images['front'] = Image(**{**GOOD, **change})
    wait_for_reason(shared_graph, 'image/front', named)
    assert_no_chunk()
    shared_graph.wait(lambda: shared_graph.policy.failures > failures, 'a failure to be counted')


@pytest.mark.parametrize(
    ('names', 'position', 'named'),
    [
        (JOINTS, [0.1] * 100, '7 names, but 100 values'),
        ([f'j{i}' for i in range(100)], [0.1] * 100, 'missing joint: fr3_joint1, fr3_joint2'),
        ((), [0.1] * 100, 'missing joint: fr3_joint1'),
        (JOINTS[:-1], HOME[:-1], 'missing joint: fr3_joint7'),
        ((*JOINTS, JOINTS[0]), (*HOME, 0.0), 'named twice: fr3_joint1'),
        (JOINTS, (float('nan'), *HOME[1:]), 'fr3_joint1 is nan, not finite'),
    ],
    ids=['100 floats', '100 joints', 'no names', 'one missing', 'one twice', 'nan'],
)
def test_when_joint_states_are_malformed_expect_the_joint_named_and_no_chunk(
    shared_graph, robot, assert_no_chunk, names, position, named
):
    robot.names, robot.position = list(names), list(position)
    wait_for_reason(shared_graph, 'joint_states', named)
    assert_no_chunk()


def test_when_joints_come_in_another_order_with_others_between_expect_the_same_state(
    shared_graph, robot
):
    position = [0.1 * i for i in range(7)]
    robot.names, robot.position = [*JOINTS[::-1], 'gripper'], [*position[::-1], 9.0]
    shared_graph.wait_for_joint_states(5)
    shared_graph.wait(
        lambda: list(next_chunk(shared_graph).anchor_position) == position, 'a chunk from there'
    )


def test_when_a_task_has_10000_characters_expect_each_front_to_refuse_it_and_no_other_session(
    shared_graph, robot, instructor
):
    session_id, said = next_chunk(shared_graph).session_id, '10000 characters, more than'
    shared_graph.tell('x' * 10_000)
    wait_for_reason(shared_graph, 'instruction', said)
    request = GetActionChunk.Request(instruction='x' * 10_000)
    answer = shared_graph.call(GetActionChunk, 'get_action_chunk', request)
    assert answer.error_code == GetActionChunk.Response.ERROR_INSTRUCTION
    assert said in answer.error_msg
    assert answer.chunk.steps == 0
    _, result = instructor.result(instructor.send('x' * 10_000))
    assert result.error_code == ExecuteInstruction.Result.ERROR_INSTRUCTION
    assert said in result.error_msg
    assert (result.chunks_sent, shared_graph.policy.instruction) == (0, 'reach')
    assert next_chunk(shared_graph).session_id == session_id


def test_when_the_node_is_inactive_expect_each_front_to_say_so_and_no_chunk(
    shared_graph, process, robot, assert_no_chunk, instructor
):
    assert shared_graph.change_state('inference', 'deactivate')
    answer = shared_graph.trigger('inference/start')
    assert (answer.success, answer.message) == (False, 'the node is not active')
    request = GetActionChunk.Request(instruction='reach')
    answer = shared_graph.call(GetActionChunk, 'get_action_chunk', request)
    assert answer.error_code == GetActionChunk.Response.ERROR_INACTIVE
    assert answer.error_msg == 'the node is not active'
    assert not instructor.send().accepted
    with shared_graph.publisher(String, 'instruction', qos.INSTRUCTION_LATCHED) as publisher:
        publisher.publish(String(data='reach'))
        assert_no_chunk()
    assert 'instruction: ignored, the node is not active' in process.output()
    assert shared_graph.change_state('inference', 'activate')
