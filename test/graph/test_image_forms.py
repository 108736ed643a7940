# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras that send something else than rgb8: compressed images, depth, and ages of their own."""

import io

import numpy as np
from fake_robot import grey_image
from inference_waits import next_chunk, wait_for_reason
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage


def png(pixels):
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, 'PNG')
    return CompressedImage(format='png', data=stream.getvalue())


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
