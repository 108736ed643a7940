# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The service GetActionChunk: one chunk, verified as the guard would, or an error with a code."""

import numpy as np
import pytest
from fake_robot import grey_image
from fr3_motion import HOME, JOINTS, LIMITS, URDF
from inference_waits import next_chunk

from vla_deploy.files import read_yaml, write_yaml
from vla_deploy.ros.conversions import time_ns
from vla_deploy_msgs.srv import GetActionChunk

Response = GetActionChunk.Response
VERIFIES = {'urdf_path': str(URDF), 'limits_path': str(LIMITS)}


@pytest.fixture
def permissive(tmp_path):
    """Limits that let pass what the policy makes of a grey image."""
    limits = read_yaml(LIMITS)
    for limit in limits['joint_limits'].values():
        limit['acceleration'] *= 100.0
        del limit['position_dependent_velocity']
    write_yaml(tmp_path / 'limits.yaml', limits)
    return {**VERIFIES, 'limits_path': str(tmp_path / 'limits.yaml')}


@pytest.fixture
def ask(shared_graph):
    """Return a function that asks for a chunk."""

    def call(instruction='reach', noise_seed=None):
        request = GetActionChunk.Request(
            instruction=instruction,
            noise_seed=noise_seed or 0,
            use_noise_seed=noise_seed is not None,
        )
        return shared_graph.call(GetActionChunk, 'get_action_chunk', request)

    return call


def wait_for_streams(graph, node):
    """Wait until the node can make an observation."""
    graph.wait(lambda: node.streams.newest_positions(JOINTS)[1] is not None, 'joint states')
    graph.wait_for_joint_states(5)


def test_when_asked_expect_a_verified_chunk_of_no_session_that_is_not_sent(
    shared_graph, robot, serve, ask, permissive
):
    node = serve(backend='onnx_runtime', noise_seed=7, **permissive)
    wait_for_streams(shared_graph, node)
    answer = ask()
    assert (answer.error_code, answer.error_msg) == (Response.ERROR_NONE, '')
    assert list(answer.report) == []
    chunk = answer.chunk
    assert (list(chunk.joint_names), chunk.noise_seed) == (list(JOINTS), 7)
    assert np.abs(np.reshape(chunk.data, (chunk.steps, 7))[0] - HOME).max() < 0.25
    assert shared_graph.chunks == []
    assert shared_graph.policy.session_id == ''


def test_when_a_seed_is_given_expect_it_used_and_the_same_chunk_again(
    shared_graph, robot, serve, ask, permissive
):
    node = serve(backend='onnx_runtime', **permissive)
    wait_for_streams(shared_graph, node)
    first, second, other = ask(noise_seed=5), ask(noise_seed=5), ask(noise_seed=6)
    assert first.chunk.noise_seed == second.chunk.noise_seed == 5
    assert first.chunk.data == second.chunk.data
    assert first.chunk.data != other.chunk.data


def test_when_a_session_runs_expect_it_to_go_on_beside_the_answer(
    shared_graph, robot, serve, ask
):
    serve(instruction='reach red', stub_value=0.0, **VERIFIES)
    session = next_chunk(shared_graph).session_id
    ask('reach blue')
    chunk = next_chunk(shared_graph)
    assert (chunk.session_id, chunk.instruction) == (session, 'reach red')


def test_when_the_chunk_breaks_a_limit_expect_the_report_and_no_chunk(
    shared_graph, robot, serve, ask
):
    node = serve(stub_value=100.0, **VERIFIES)
    wait_for_streams(shared_graph, node)
    answer = ask()
    assert answer.error_code == Response.ERROR_VERIFICATION
    assert {violation.rule for violation in answer.report} == {'start_jump'}
    assert {violation.joint for violation in answer.report} == set(JOINTS)
    assert answer.error_msg == answer.report[0].message
    assert (answer.chunk.steps, list(answer.chunk.data)) == (0, [])


def test_when_the_guards_parameters_are_given_expect_its_rules_and_jerk_as_it_enforces_it(
    shared_graph, robot, serve, ask, permissive, tmp_path
):
    path = tmp_path / 'guard.yaml'
    limits = read_yaml(permissive['limits_path'])
    for limit in limits['joint_limits'].values():
        limit['jerk'] = 1.0
    write_yaml(tmp_path / 'limits.yaml', limits)
    given = {**permissive, 'guard_parameters_path': str(path), 'backend': 'onnx_runtime'}
    for parameters, rules in (
        ({'enforce_jerk': False}, set()),
        ({'enforce_jerk': False, 'knot_scale': 0.05}, {'velocity', 'acceleration'}),
        ({'enforce_jerk': True}, {'jerk'}),
    ):
        write_yaml(path, {'/**': {'ros__parameters': {'joint_names': ['x'], **parameters}}})
        node = serve(noise_seed=7, **given)
        wait_for_streams(shared_graph, node)
        found = {violation.rule for violation in ask().report}
        assert found <= rules
        assert bool(found) is bool(rules)
        serve.stop()


@pytest.mark.parametrize(('text', 'said'), [
    ('guard: 3', "lacks '/**': 'ros__parameters'"),
    ('/**: {ros__parameters: {knot_scale: 9.0}}', 'knot_scale is 9.0, above its maximum'),
    ('/**: {ros__parameters: {start_jmp: 1.0}}', "'start_jmp'; did you mean 'start_jump'?"),
])
def test_when_the_guards_parameters_are_wrong_expect_configure_to_fail(
    refuse, tmp_path, text, said
):
    path = tmp_path / 'guard.yaml'
    path.write_text(text)
    line = refuse(**VERIFIES, guard_parameters_path=str(path))
    assert str(path) in line
    assert said in line


def test_when_no_limits_are_known_expect_no_chunk_and_the_parameters_named(
    shared_graph, robot, serve, ask
):
    node = serve()
    wait_for_streams(shared_graph, node)
    answer = ask()
    assert answer.error_code == Response.ERROR_VERIFICATION
    assert 'urdf_path' in answer.error_msg
    assert 'limits_path' in answer.error_msg


@pytest.mark.parametrize('missing', ['urdf_path', 'limits_path'])
def test_when_one_of_the_two_files_is_given_expect_configure_to_fail(refuse, missing):
    line = refuse(**{name: path for name, path in VERIFIES.items() if name != missing})
    assert "'urdf_path' and 'limits_path'" in line


def test_when_the_limits_lack_a_joint_expect_configure_to_fail_naming_it(refuse, tmp_path):
    limits, path = read_yaml(LIMITS), tmp_path / 'limits.yaml'
    del limits['joint_limits']['fr3_joint1']
    write_yaml(path, limits)
    line = refuse(**{**VERIFIES, 'limits_path': str(path)})
    assert 'joint_limits.fr3_joint1 is missing' in line


@pytest.mark.parametrize(('text', 'said'), [(' ', 'empty'), ('x' * 10_000, '10000 characters')])
def test_when_the_instruction_is_none_expect_its_code(
    shared_graph, robot, serve, ask, text, said
):
    serve(**VERIFIES)
    answer = ask(text)
    assert answer.error_code == Response.ERROR_INSTRUCTION
    assert said in answer.error_msg


def test_when_a_stream_is_missing_or_malformed_expect_it_named(shared_graph, robot, serve, ask):
    node = serve(**VERIFIES)
    wait_for_streams(shared_graph, node)
    robot.images['front'] = grey_image('16UC1')
    shared_graph.wait(lambda: ask().error_code == Response.ERROR_OBSERVATION, 'the error')
    assert ask().error_msg.startswith('image/front')
    robot.images['front'] = grey_image()
    shared_graph.wait(lambda: ask().error_code != Response.ERROR_OBSERVATION, 'recovery')


def test_when_several_ask_at_once_expect_one_served_and_the_others_told_to_ask_again(
    shared_graph, robot, serve, permissive
):
    node = serve(backend='onnx_runtime', inject_latency_ms=300.0, **permissive)
    wait_for_streams(shared_graph, node)
    client = shared_graph.node.create_client(GetActionChunk, 'get_action_chunk')
    shared_graph.wait(client.service_is_ready, 'the service')
    request = GetActionChunk.Request(instruction='reach')
    asked = [client.call_async(request) for _ in range(5)]
    shared_graph.wait(lambda: all(future.done() for future in asked), 'five answers')
    codes = [future.result().error_code for future in asked]
    assert codes[0] != Response.ERROR_POLICY
    refused = [f.result() for f in asked if f.result().error_code == Response.ERROR_POLICY]
    assert len(refused) == 4
    assert all('ask again' in answer.error_msg for answer in refused)
    shared_graph.node.destroy_client(client)


def being_computed(shared_graph, serve, permissive):
    """Return a node that computes a requested chunk for a second, the client, and its future."""
    node = serve(backend='onnx_runtime', inject_latency_ms=1000.0, **permissive)
    wait_for_streams(shared_graph, node)
    client = shared_graph.node.create_client(GetActionChunk, 'get_action_chunk')
    shared_graph.wait(client.service_is_ready, 'the service')
    answer = client.call_async(GetActionChunk.Request(instruction='reach'))
    shared_graph.wait(lambda: node.loop._asked is not None, 'the request to be computed')
    return node, client, answer


def test_when_a_request_waits_for_its_chunk_expect_the_other_callbacks_to_go_on(
    shared_graph, robot, serve, permissive
):
    node, client, answer = being_computed(shared_graph, serve, permissive)
    stamp_ns = node.streams.newest_positions(JOINTS)[0]
    shared_graph.wait(
        lambda: node.streams.newest_positions(JOINTS)[0] > stamp_ns + 100_000_000, 'joint states'
    )
    assert not answer.done()
    shared_graph.wait(answer.done, 'the answer')
    shared_graph.node.destroy_client(client)


@pytest.mark.parametrize(
    'transitions', [('deactivate',), ('deactivate', 'cleanup'), ('active_shutdown',)]
)
def test_when_the_node_ceases_to_serve_meanwhile_expect_its_code_and_no_chunk(
    shared_graph, robot, serve, permissive, transitions
):
    _, client, asked = being_computed(shared_graph, serve, permissive)
    for transition in transitions:
        assert shared_graph.change_state('inference', transition)
    shared_graph.wait(asked.done, 'the answer')
    answer = asked.result()
    assert answer.error_code == Response.ERROR_INACTIVE
    assert answer.error_msg == 'the node ceased to serve while the chunk was computed'
    assert answer.chunk.steps == 0
    shared_graph.node.destroy_client(client)


def test_when_inactive_expect_its_code_in_each_lifecycle_state(shared_graph, robot, serve, ask):
    serve(**VERIFIES)
    for transition in ('deactivate', 'cleanup'):
        assert shared_graph.change_state('inference', transition)
        answer = ask()
        assert answer.error_code == Response.ERROR_INACTIVE
        assert time_ns(answer.chunk.header.stamp) == 0
