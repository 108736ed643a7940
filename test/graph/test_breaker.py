# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A policy that fails is left alone for a while; what a client sends never is the reason."""

from fake_robot import grey_image
from fr3_motion import LIMITS, URDF
from inference_waits import next_chunk, wait_for_reason

from vla_deploy_msgs.srv import GetActionChunk


def test_when_the_policy_fails_again_and_again_expect_it_left_alone_tried_once_and_left_again(
    shared_graph, robot, serve, infinite_bundle
):
    files = {'urdf_path': str(URDF), 'limits_path': str(LIMITS)}
    serve(
        instruction='reach', bundle=str(infinite_bundle), backend='onnx_runtime',
        breaker_failures=2, breaker_open_s=1.5, **files,
    )  # fmt: skip
    wait_for_reason(shared_graph, 'inference failed 2 times in a row', 'retry after')
    shared_graph.wait(lambda: shared_graph.policy.breaker == 'open', 'the breaker to open')
    assert 0.0 < shared_graph.policy.retry_after_s <= 1.5
    assert shared_graph.policy.failures == 2
    request = GetActionChunk.Request(instruction='reach')
    answer = shared_graph.call(GetActionChunk, 'get_action_chunk', request)
    assert answer.error_code == GetActionChunk.Response.ERROR_POLICY
    assert 'retry after' in answer.error_msg
    shared_graph.wait(lambda: shared_graph.policy.failures >= 3, 'another attempt')
    wait_for_reason(shared_graph, 'inference failed 3 times in a row')


def test_when_images_cannot_be_used_expect_the_breaker_closed_and_chunks_again_at_once(
    shared_graph, robot, serve
):
    serve(instruction='reach', breaker_failures=1, breaker_open_s=3600.0)
    robot.images['front'] = grey_image('16UC1')
    shared_graph.wait(lambda: shared_graph.policy.failures >= 3, 'three failures')
    assert shared_graph.policy.breaker == 'closed'
    robot.images['front'] = grey_image()
    next_chunk(shared_graph)
