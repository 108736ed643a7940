# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How chunks follow one another in the running node, and the parameters of that."""

import numpy as np
import pytest
from inference_waits import next_chunk, wait_for_reason
from rclpy.parameter import Parameter

from vla_deploy.ros.conversions import duration_s, time_ns

REACH = {'instruction': 'reach', 'retry_s': 60.0}
STEPS = 16


def run(graph, robot, chunk, next_index, consumed):
    """Let the played guard execute a chunk up to a sample, and the node see a later image."""
    robot.plan = (chunk.session_id, chunk.seq, next_index)
    robot.consumed_total = consumed
    graph.wait_for_joint_states(5)


def follow(graph, robot, serve, **parameters):
    """Return a chunk from a standing start, and the one that follows while it runs."""
    serve(**{**REACH, 'execute_steps': 4, **parameters})
    first = next_chunk(graph)
    run(graph, robot, first, 3, 3)
    run(graph, robot, first, 4, 4)
    graph.wait(lambda: len(graph.chunks) == 2, 'the next chunk')
    return graph.chunks


@pytest.mark.parametrize(
    ('parameters', 'named'),
    [
        ({'strategy': 'real_time_chunking', 'execute_steps': 16}, "'execute_steps' is 16"),
        ({'strategy': 'ensembling'}, "'execute_steps' is 16"),
        ({'strategy': 'synchronous', 'execute_steps': 1}, "'execute_steps' is 1"),
        ({'strategy': 'synchronous', 'action_similarity': 0.1}, "'action_similarity'"),
        ({'execute_steps': 17}, "'execute_steps' is 17"),
    ],
)
def test_when_parameters_contradict_each_other_expect_configure_to_fail_naming_them(
    refuse, parameters, named
):
    assert named in refuse(**parameters)


@pytest.mark.parametrize(
    'parameters',
    [
        {'strategy': 'real_time_chunking', 'execute_steps': 8},
        {'deadline_ms': 50.0},
        {'adaptive_steps': 0.1},
    ],
    ids=lambda p: next(iter(p)),
)
def test_when_the_variant_takes_all_steps_at_once_expect_what_needs_them_apart_refused(
    refuse, parameters
):
    line = refuse(backend='onnx_runtime', variant='loop', **parameters)
    assert f"parameter '{next(iter(parameters))}'" in line
    assert "variant 'split', not 'loop'" in line


def test_when_asynchronous_expect_the_next_chunk_while_the_first_runs_and_the_delay_in_samples(
    shared_graph, robot, serve
):
    first, second = follow(shared_graph, robot, serve)
    assert first.strategy == second.strategy == shared_graph.policy.strategy == 'asynchronous'
    assert (first.steps, second.steps) == (STEPS, STEPS)
    assert second.guided_steps == 0
    assert second.delay_steps <= 1
    assert shared_graph.policy.delay_steps == 4  # none was measured yet
    run(shared_graph, robot, second, 2, 7)
    shared_graph.wait(lambda: shared_graph.policy.delay_steps == 3, 'the delay of the second')


def test_when_no_image_comes_while_a_chunk_runs_expect_no_other_of_the_same_image(
    shared_graph, robot, serve, monkeypatch
):
    serve(**REACH, execute_steps=1)
    next_chunk(shared_graph)
    monkeypatch.setattr(robot, 'images', {})
    for consumed in range(1, 6):  # the first may see an image that came meanwhile
        run(shared_graph, robot, shared_graph.chunks[-1], 1, consumed)
    seen_ns = [time_ns(chunk.image_stamps[0]) for chunk in shared_graph.chunks]
    assert len(seen_ns) == len(set(seen_ns)) < 5
    monkeypatch.undo()
    shared_graph.wait(lambda: len(shared_graph.chunks) > len(seen_ns), 'a chunk of a new image')


def test_when_synchronous_expect_the_robot_at_rest_between_chunks_of_execute_steps(
    shared_graph, robot, serve
):
    serve(**REACH, strategy='synchronous', execute_steps=4)
    first = next_chunk(shared_graph)
    assert (first.steps, len(first.data), first.raw_steps) == (4, 4 * 7, STEPS)
    robot.moving = True
    run(shared_graph, robot, first, 4, 4)
    robot.plan = None
    shared_graph.wait_for_joint_states(10)
    assert shared_graph.chunks == [first]
    robot.moving = False
    stopped_ns = shared_graph.now_ns()
    shared_graph.wait(lambda: len(shared_graph.chunks) == 2, 'the next chunk')
    assert time_ns(shared_graph.chunks[1].observation_stamp) >= stopped_ns


def test_when_ensembling_expect_the_mean_of_both_and_the_policys_own_beside_it(
    shared_graph, robot, serve
):
    parameters = {'strategy': 'ensembling', 'backend': 'onnx_runtime', 'noise_seed': 1}
    first, second = follow(shared_graph, robot, serve, ensemble_decay=0.0, **parameters)
    sent, before = (np.reshape(c.data, (STEPS, 7)) for c in (second, first))
    assert second.difference > 0.0
    # Samples that the first one holds too lie half-way: all but the last few of the second.
    shift = second.difference / 2
    assert 0.0 < np.abs(sent[0] - before[3:5]).max() <= shift + np.abs(np.diff(before)).max()


def test_when_real_time_chunking_expect_the_second_chunk_drawn_toward_the_first(
    shared_graph, robot, serve
):
    parameters = {'strategy': 'real_time_chunking', 'backend': 'onnx_runtime'}
    first, second = follow(shared_graph, robot, serve, **parameters)
    assert first.guided_steps == 0
    assert 10 <= second.guided_steps <= 13


@pytest.mark.parametrize('name', ['guidance_max_weight', 'guidance_schedule'])
def test_when_guidance_is_weaker_expect_a_larger_difference_to_the_running_chunk(
    shared_graph, robot, serve, name
):
    values = {'guidance_max_weight': (50.0, 0.0), 'guidance_schedule': ('ones', 'zeros')}[name]

    def difference(value):
        shared_graph.policies.clear()
        robot.plan = None
        second = follow(
            shared_graph, robot, serve, strategy='real_time_chunking', backend='onnx_runtime',
            noise_seed=1, **{name: value},
        )[1]  # fmt: skip
        serve.stop()
        return second.difference

    strong, weak = (difference(value) for value in values)
    assert strong < weak


def test_when_the_deadline_cannot_be_held_expect_misses_counted_no_chunk_and_recovery(
    shared_graph, robot, serve
):
    node = serve(
        instruction='reach', backend='onnx_runtime', deadline_ms=2000.0, inject_latency_ms=8000.0
    )
    wait_for_reason(shared_graph, 'deadline: given up before step')
    shared_graph.wait(lambda: shared_graph.policy.deadline_misses >= 1, 'a miss')
    assert shared_graph.policy.failures == shared_graph.policy.chunks == 0
    assert shared_graph.policy.breaker == 'closed'
    node.set_parameters([Parameter('inject_latency_ms', value=0.0)])
    chunk = next_chunk(shared_graph)
    assert duration_s(chunk.inference_time) < 2.0


def test_when_steps_are_adaptive_expect_fewer_and_their_measured_error_in_chunk_and_status(
    shared_graph, robot, serve
):
    serve(instruction='reach', backend='onnx_runtime')
    full = next_chunk(shared_graph)
    serve.stop()
    serve(instruction='reach', backend='onnx_runtime', adaptive_steps=1.0)
    early = next_chunk(shared_graph)
    assert early.denoise_steps < full.denoise_steps
    assert full.adaptive_error == 0.0
    assert 0.0 < early.adaptive_error == shared_graph.policy.adaptive_error < 1.0


@pytest.mark.parametrize(('max_skips', 'due_at'), [(1, 4), (2, 6)])
def test_when_chunks_are_alike_expect_as_many_inferences_left_out_as_allowed(
    shared_graph, robot, serve, max_skips, due_at
):
    serve(**REACH, execute_steps=2, action_similarity=0.01, max_skips=max_skips)
    first = next_chunk(shared_graph)
    run(shared_graph, robot, first, 2, 2)
    shared_graph.wait(lambda: len(shared_graph.chunks) == 2, 'the second chunk')
    second = shared_graph.chunks[-1]
    assert (second.difference, second.skipped) == (0.0, 0)
    run(shared_graph, robot, second, due_at - 1, 5)
    run(shared_graph, robot, second, due_at + 1, 5)
    shared_graph.wait(lambda: shared_graph.policy.skips == max_skips, 'the inferences left out')
    run(shared_graph, robot, second, due_at + 2, 5)
    shared_graph.wait(lambda: len(shared_graph.chunks) == 3, 'the third chunk')
    assert shared_graph.chunks[-1].skipped == max_skips
