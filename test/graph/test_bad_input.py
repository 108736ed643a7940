# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a robot, a camera or a person may send: an error names it, no chunk, the node lives."""

import io

import numpy as np
import pytest
from fake_robot import grey_image
from fr3_motion import HOME, JOINTS
from inference_waits import next_chunk, wait_for_reason, wait_for_recovery
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image

GOOD = {'height': 64, 'width': 64, 'encoding': 'rgb8', 'step': 192, 'data': bytes(64 * 192)}


def png(pixels):
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, 'PNG')
    return CompressedImage(format='png', data=stream.getvalue())


@pytest.fixture
def wait_for_no_chunk(shared_graph):
    """Return a function that asserts that none comes although an inference was tried again."""

    def wait():
        failures, sent = shared_graph.policy.failures, shared_graph.policy.chunks
        shared_graph.wait(lambda: shared_graph.policy.failures > failures, 'another failure')
        assert shared_graph.policy.chunks == sent

    return wait


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
def test_when_an_image_is_malformed_expect_its_stream_named_no_chunk_and_recovery(
    shared_graph, robot, serve, wait_for_no_chunk, change, named
):
    serve(instruction='reach')
    next_chunk(shared_graph)
    robot.images['front'] = Image(**{**GOOD, **change})
    wait_for_reason(shared_graph, 'image/front', named)
    wait_for_no_chunk()
    robot.images['front'] = grey_image()
    wait_for_recovery(shared_graph)


@pytest.mark.parametrize(
    ('names', 'position', 'named'),
    [
        (JOINTS, [0.1] * 100, '7 names, but 100 values'),
        ([f'j{i}' for i in range(100)], [0.1] * 100, 'missing joint: fr3_joint1, fr3_joint2'),
        ((), [0.1] * 100, 'missing joint: fr3_joint1'),
        (JOINTS[:-1], HOME[:-1], 'missing joint: fr3_joint7'),
        ((*JOINTS, JOINTS[0]), (*HOME, 0.0), 'named twice: fr3_joint1'),
    ],
    ids=['100 floats', '100 joints', 'no names', 'one missing', 'one twice'],
)
def test_when_joint_states_are_malformed_expect_the_joint_named_and_recovery(
    shared_graph, robot, serve, names, position, named
):
    serve(instruction='reach', joint_state_max_age_s=0.5)
    next_chunk(shared_graph)
    robot.names, robot.position = list(names), list(position)
    wait_for_reason(shared_graph, 'joint_states', named)
    robot.names, robot.position = list(JOINTS), list(HOME)
    wait_for_recovery(shared_graph)


def test_when_a_joint_state_is_not_finite_expect_the_joint_named_and_no_chunk(
    shared_graph, robot, serve, wait_for_no_chunk
):
    serve(instruction='reach')
    next_chunk(shared_graph)
    robot.position = [float('nan'), *HOME[1:]]
    wait_for_reason(shared_graph, 'joint_states: fr3_joint1 is nan, not finite')
    wait_for_no_chunk()
    robot.position = list(HOME)
    wait_for_recovery(shared_graph)


def test_when_a_task_has_10000_characters_expect_it_refused_and_the_running_one_to_go_on(
    shared_graph, robot, serve
):
    serve(instruction='reach')
    next_chunk(shared_graph)
    shared_graph.tell('x' * 10_000)
    assert shared_graph.policy.instruction == 'reach'
    assert next_chunk(shared_graph).instruction == 'reach'


def test_when_the_node_is_inactive_expect_the_services_to_say_so(shared_graph, robot, serve):
    serve()
    assert shared_graph.change_state('inference', 'deactivate')
    answer = shared_graph.trigger('inference/start')
    assert (answer.success, answer.message) == (False, 'the node is not active')


# -- images in other forms ------------------------------------------------------------------------


def test_when_a_camera_is_compressed_expect_the_pixels_of_its_images_and_broken_ones_named(
    shared_graph, robot, serve
):
    pixels = np.full((64, 64, 3), 127, np.uint8)
    robot.images['front'] = png(pixels)
    parameters = {'instruction': 'reach', 'backend': 'onnx_runtime', 'noise_seed': 3}
    serve(**parameters, compressed_cameras=['front'])
    compressed = next_chunk(shared_graph)
    robot.images['front'] = CompressedImage(format='jpeg', data=b'nothing')
    wait_for_reason(shared_graph, 'image/front', 'neither JPEG nor PNG')
    robot.images['front'] = grey_image()
    serve.stop()
    serve(**parameters)
    assert next_chunk(shared_graph).data == compressed.data


def test_when_a_camera_that_is_not_there_is_to_be_compressed_expect_it_named(refuse):
    line = refuse(compressed_cameras=['front', 'back'])
    assert "'compressed_cameras' names back; the policy has front" in line


def test_when_depth_is_allowed_expect_chunks_from_depth_images(shared_graph, robot, serve):
    robot.images['front'] = grey_image('16UC1')
    serve(instruction='reach', depth_max_m=2.0)
    next_chunk(shared_graph)


def test_when_a_camera_has_an_age_of_its_own_expect_it_instead_of_the_common_one(
    shared_graph, robot, serve, refuse
):
    assert "'camera_max_age_s' is [1.0, 2.0]" in refuse(camera_max_age_s=[1.0, 2.0])
    robot.image_delay_s = 1.0
    serve(instruction='reach', image_max_age_s=5.0, camera_max_age_s=[0.3])
    wait_for_reason(shared_graph, 'image/front: newest message is', 'more than 0.300 s')
    serve.stop()
    serve(instruction='reach', image_max_age_s=0.3, camera_max_age_s=[5.0])
    next_chunk(shared_graph)
