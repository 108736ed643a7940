# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Several observations at a time on the torch backend's CPU form: each as if it were alone."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import torch_requirements  # noqa: E402
from vla_deploy.backends.fused_inputs import bucket_of  # noqa: E402
from vla_deploy.backends.roofline import phase_costs  # noqa: E402
from vla_deploy.backends.tuning import (  # noqa: E402
    LIBRARY,
    by_library,
    candidates,
    padded_rows,
)
from vla_deploy.models.published import PUBLISHED  # noqa: E402
from vla_deploy.pipeline import ObservationError, PolicyError  # noqa: E402
from vla_deploy.pipeline.fixtures import read_fixtures  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread')
SETS = ('pi0', 'pi05', 'smolvla_2cam_empty')
BATCH = 4
TOLERANCE = 5e-6  # of a chunk in float32, from one size of products to another


@pytest.fixture
def serve(serve):
    """Return name, options -> the policy of a golden bundle, for BATCH observations at a time."""
    return functools.partial(serve, variant='unrolled', batch=BATCH)


@pytest.fixture
def mixed(golden_bundle):
    """Return name, policy -> observations of different texts, states and images, with a camera
    missing in one."""

    def make(name, policy):
        fixtures = read_fixtures(golden_bundle(name) / 'fixtures.npz', policy.contract)
        base = [fixtures[i % len(fixtures)].observation for i in range(BATCH)]
        texts = ('', 'pick up the red block and put it into the box', 'stop', 'move left')
        made = [
            dataclasses.replace(own, instruction=text, state=np.asarray(own.state) * (1 - 0.1 * i))
            for i, (own, text) in enumerate(zip(base, texts, strict=True))
        ]
        images = dict(list(made[2].images.items())[-1:])
        made[2] = dataclasses.replace(made[2], images=images)
        assert len({len(own.images) for own in made}) > 1
        return made

    return make


@pytest.mark.parametrize('name', SETS)
def test_when_observations_are_computed_together_expect_the_chunk_of_each_alone(
    name, serve, mixed
):
    policy = serve(name)
    observations = mixed(name, policy)
    together = policy.infer_batch(observations, noise_seeds=range(BATCH))
    for seed, (observation, chunk) in enumerate(zip(observations, together, strict=True)):
        alone = policy.infer(observation, noise_seed=seed)
        assert float(np.abs(chunk.raw - alone.raw).max()) < TOLERANCE
        assert (chunk.noise_seed, chunk.instruction) == (seed, observation.instruction)
        assert chunk.missing_cameras == alone.missing_cameras
        assert chunk.finite
    assert len({chunk.raw.tobytes() for chunk in together}) == BATCH


@pytest.mark.parametrize('name', SETS)
def test_when_the_neighbours_change_expect_the_same_bits(name, serve, mixed):
    policy = serve(name)
    observations = mixed(name, policy)
    one, two, three = (observations[i] for i in (1, 0, 3))
    first = policy.infer_batch([one, two, three], noise_seeds=[7, 8, 9])[0]
    brighter = {key: 255 - image for key, image in two.images.items()}
    other = dataclasses.replace(two, images=brighter, instruction='wave')
    second = policy.infer_batch([one, other, two], noise_seeds=[7, 1, 2])[0]
    assert np.array_equal(first.raw, second.raw)


@torch.inference_mode()
@pytest.mark.parametrize('name', SETS)
def test_when_a_longer_text_came_before_expect_products_of_a_shorter_one_to_load(name, serve):
    backend = serve(name)._backend
    policy, config = backend._policy, backend._policy.config
    policy.length.fill_(config.prefix_length)  # as what was measured with the longest text left
    policy.load_products(backend._inputs_of(bucket_of(config, config.camera_slots, 1, BATCH)))
    rows = config.camera_slots * config.tokens_per_image + policy.state_rows
    assert policy.length.tolist() == [rows] * BATCH


def test_when_fewer_come_than_go_together_expect_their_chunks_alone(serve, mixed):
    policy = serve('pi0')
    observations = mixed('pi0', policy)
    policy.infer_batch(observations, noise_seeds=range(BATCH))
    two = policy.infer_batch(observations[:2], noise_seeds=range(2))
    assert len(two) == 2
    for seed, chunk in enumerate(two):
        alone = policy.infer(observations[seed], noise_seed=seed)
        assert float(np.abs(chunk.raw - alone.raw).max()) < TOLERANCE


def test_when_steps_are_taken_behind_a_batch_expect_the_prefix_before_it_refused(serve, mixed):
    policy = serve('pi0')
    backend, observations = policy._backend, mixed('pi0', policy)
    prefix = backend.prefix(policy._take(0, observations[0]).inputs)
    policy.infer_batch(observations)
    config = backend._policy.config
    x = np.zeros((config.chunk_size, config.max_action_dim), np.float32)
    with pytest.raises(PolicyError, match='overwritten'):
        backend.step(prefix, x, backend._steps[0], np.float32(-0.1))


@pytest.mark.parametrize('count', [0, BATCH + 1])
def test_when_too_few_or_too_many_observations_come_expect_the_bounds(count, serve, mixed):
    policy = serve('pi0')
    with pytest.raises(ValueError, match=f'{count} observations, but must be 1 to {BATCH}'):
        policy.infer_batch((mixed('pi0', policy) * 2)[:count])


def test_when_noise_is_not_one_for_each_observation_expect_it_said(serve, mixed):
    policy = serve('pi0')
    with pytest.raises(ValueError, match=f'give {BATCH} noises or seeds'):
        policy.infer_batch(mixed('pi0', policy), noise_seeds=[1])


def test_when_noise_comes_as_one_array_expect_each_observation_its_own(serve, mixed):
    policy = serve('pi0')
    config = policy.contract
    shape = (BATCH, config.chunk_steps, config.action.padded_dim)
    noise = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    observations = mixed('pi0', policy)
    together = policy.infer_batch(observations, noise=noise)
    for index in (0, BATCH - 1):
        alone = policy.infer(observations[index], noise=noise[index])
        assert float(np.abs(together[index].raw - alone.raw).max()) < TOLERANCE


def test_when_an_observation_is_unusable_expect_its_number(serve, mixed):
    policy = serve('pi0')
    observations = mixed('pi0', policy)
    observations[2] = dataclasses.replace(observations[2], state=[0.0])
    with pytest.raises(ObservationError, match='^observation 2: joint_states: '):
        policy.infer_batch(observations)


def test_when_the_policy_was_loaded_for_one_expect_to_load_it_for_several(serve):
    with pytest.raises(PolicyError, match='one observation at a time.*batch of several'):
        serve('pi0', batch=1).infer_batch([])


@pytest.mark.parametrize('options', [
    {'variant': 'split'}, {'batch': 0}, {'batch': torch_requirements.MOST_OBSERVATIONS + 1},
])
def test_when_a_batch_is_not_possible_expect_what_is(options, serve):
    with pytest.raises(PolicyError, match='batch .* is not possible.*possible: '):
        serve('pi0', **options)


@pytest.mark.parametrize('options', [
    {'backend': 'onnx_runtime'}, {'backend': 'stub', 'variant': 'split'},
])
def test_when_a_backend_takes_one_at_a_time_expect_another_named(options, serve):
    with pytest.raises(PolicyError, match='batch 4 is not possible.*choose backend torch_cuda'):
        serve('pi0', **options)


def test_when_what_serves_a_batch_is_wrong_expect_the_self_test_to_fail(serve, monkeypatch):
    policy = serve('pi0')
    assert policy.self_test().passed
    right = policy._several
    monkeypatch.setattr(policy, '_several', lambda *given: right(*given)[::-1])
    assert not policy.self_test().passed


def test_when_observations_share_the_weights_expect_their_arithmetic_many_times_over():
    one, eight = (phase_costs(PUBLISHED['pi0'], count) for count in (1, 8))
    for phase, cost in one.items():
        assert eight[phase].flops == 8 * cost.flops
        assert cost.read_bytes <= eight[phase].read_bytes < 2 * cost.read_bytes
    assert eight['denoise'].read_bytes > one['denoise'].read_bytes


@pytest.mark.parametrize('count', [2, 3, 8, 32])
def test_when_rows_are_of_several_observations_expect_candidates_that_divide_them(count):
    rows = padded_rows(51 * count)
    assert 51 * count <= rows < 51 * count + 128
    for columns, depth in ((1024, 4096), (32, 1024), (1024, 32)):
        for c in candidates('linear', (rows, columns, depth), torch.bfloat16):
            assert rows % (c.rows or rows) == 0
    for features, unit in ((4096, 4096), (1280, 128)):
        for c in candidates('pair', (rows, features, 1024, unit), torch.bfloat16):
            assert by_library(c) or unit % c.columns == 0


def test_when_a_product_may_be_too_large_for_float16_expect_it_not_left_to_the_library():
    def left(columns, dtype):
        return LIBRARY in candidates('pair', (512, columns, 1024, columns), dtype)

    assert left(4096, torch.bfloat16)
    assert left(4096, torch.float32)
    assert not left(4096, torch.float16)
    assert not left(256, torch.bfloat16)
