# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import time

import numpy as np
import pytest

from vla_deploy.core.contract import TimeEmbedding
from vla_deploy.pipeline import (
    BundleError,
    Observation,
    ObservationError,
    Policy,
    PolicyError,
    native,
)
from vla_deploy.pipeline import fixtures as fixture_files
from vla_deploy.pipeline.guidance import Guidance
from vla_deploy.pipeline.sampler import (
    DeadlineError,
    EulerSampler,
    Haste,
    philox_noise,
    time_embeddings,
)

IMAGE = np.full((48, 64, 3), 90, np.uint8)
OBSERVATION = Observation({'front': IMAGE, 'wrist': IMAGE}, np.zeros(7), 'reach the red cube')


class StraightBackend:
    """Its velocity points from the target to x, so that every Euler step count ends there."""

    emits_robot_units = False

    def __init__(self, target):
        self.target = target
        self.steps = []

    def prefix(self, inputs):
        self.inputs = inputs._replace(images=inputs.images.copy())
        return 'seen'

    def step(self, prefix, x, time_embedding, dt):
        assert prefix == 'seen'
        self.steps.append((time_embedding, dt))
        remaining = np.float32(1.0) + np.float32(len(self.steps) - 1) * dt
        velocity = (x - self.target) / remaining
        return x + dt * velocity, velocity


@pytest.fixture
def straight(plain_bundle):
    from vla_deploy.pipeline.bundle import open_bundle

    backend = StraightBackend(np.float32(0.25))
    return Policy(open_bundle(plain_bundle()), backend), backend


@pytest.mark.parametrize('value', [0.0, 100.0, -3.25])
def test_when_stub_serves_expect_its_value_for_every_joint_in_robot_units(plain_bundle, value):
    chunk = Policy.load(plain_bundle(), backend='stub', stub_value=value).infer(OBSERVATION)
    assert chunk.actions.shape == (6, 7)
    assert chunk.actions.dtype == np.float64
    assert (chunk.actions == value).all()


def test_when_backend_answers_in_model_space_expect_robot_units(straight):
    policy, _ = straight
    chunk = policy.infer(OBSERVATION, noise_seed=3)
    expected = np.float32(0.25) * np.float32(0.5) + np.linspace(-1, 1, 7, dtype=np.float32)
    assert chunk.raw.shape == (6, 8)
    assert np.abs(chunk.raw - 0.25).max() <= 1e-6
    assert np.abs(chunk.actions - expected).max() <= 1e-6


@pytest.fixture
def differing(plain_bundle, plain_contract):
    """Return a policy whose joints 1 and 5 are differences to the state, and its backend."""
    from vla_deploy.pipeline.bundle import open_bundle

    action = dataclasses.replace(plain_contract.action, semantics='delta', delta_dims=(1, 5))
    bundle = plain_bundle(dataclasses.replace(plain_contract, action=action), 'differing')
    backend = StraightBackend(np.float32(0.25))
    return Policy(open_bundle(bundle), backend)


def test_when_actions_are_differences_expect_the_observed_state_added(straight, differing):
    state = np.linspace(-0.5, 0.7, 7)
    observation = dataclasses.replace(OBSERVATION, state=state)
    noise = philox_noise(1, (6, 8))
    absolute = straight[0].infer(observation, noise=noise).actions
    actions = differing.infer(observation, noise=noise).actions
    expected = np.zeros(7)
    expected[[1, 5]] = state[[1, 5]]
    assert actions - absolute == pytest.approx(np.tile(expected, (6, 1)), abs=1e-6)


def test_when_actions_are_differences_expect_guidance_refused(straight, differing):
    guidance = Guidance(np.zeros((3, 7), np.float32), 1, 3, 'linear', 5.0)
    straight[0].infer(OBSERVATION, guidance=guidance)
    with pytest.raises(PolicyError, match='guidance needs absolute actions'):
        differing.infer(OBSERVATION, guidance=guidance)


def test_when_sampling_expect_one_step_per_time_with_the_same_negative_dt(straight):
    policy, backend = straight
    policy.infer(OBSERVATION)
    table = time_embeddings(policy.contract.time_embedding, 4)
    assert [dt for _, dt in backend.steps] == [np.float32(-0.25)] * 4
    assert np.array_equal([embedding for embedding, _ in backend.steps], table)


def test_when_denoise_steps_change_expect_so_many_steps(straight, plain_contract):
    _, backend = straight
    sampler = EulerSampler(plain_contract.time_embedding, 7)
    sampler(lambda x, t, dt: backend.step('seen', x, t, dt), np.zeros((6, 8), np.float32))
    assert len(backend.steps) == 7


def test_when_seed_is_the_same_expect_the_same_noise_and_else_another():
    assert np.array_equal(philox_noise(7, (50, 32)), philox_noise(7, (50, 32)))
    assert not np.array_equal(philox_noise(7, (50, 32)), philox_noise(8, (50, 32)))
    assert philox_noise(7, (50, 32)).dtype == np.float32


def test_when_no_seed_is_given_expect_a_new_one_that_repeats_the_chunk(plain_bundle):
    policy = Policy.load(plain_bundle(), backend='stub')
    first, second = policy.infer(OBSERVATION), policy.infer(OBSERVATION)
    assert first.noise_seed != second.noise_seed
    assert policy.infer(OBSERVATION, noise_seed=first.noise_seed).noise_seed == first.noise_seed


def test_when_noise_is_given_expect_no_seed_in_the_chunk(plain_bundle):
    policy = Policy.load(plain_bundle(), backend='stub')
    assert policy.infer(OBSERVATION, noise=np.zeros((6, 8), np.float32)).noise_seed is None


@pytest.mark.parametrize(
    ('noise', 'seed', 'message'),
    [
        (np.zeros((6, 7), np.float32), None, r'noise must be float32 \[6, 8\], not float32'),
        (np.zeros((6, 8)), None, 'not float64'),
        (np.zeros((6, 8), np.float32), 1, 'not both'),
    ],
)
def test_when_noise_cannot_be_used_expect_error(plain_bundle, noise, seed, message):
    policy = Policy.load(plain_bundle(), backend='stub')
    with pytest.raises(ValueError, match=message):
        policy.infer(OBSERVATION, noise=noise, noise_seed=seed)


def test_when_policy_gives_nan_expect_it_returned_and_flagged(straight):
    policy, backend = straight
    backend.target = np.float32(np.nan)
    chunk = policy.infer(OBSERVATION)
    assert np.isnan(chunk.actions).all()
    assert not chunk.finite


def test_when_a_camera_is_missing_or_a_prompt_cut_expect_the_chunk_to_say_so(straight):
    policy, backend = straight
    chunk = policy.infer(Observation({'wrist': IMAGE}, np.zeros(7), 'reach ' * 50))
    assert chunk.missing_cameras == ('front',)
    assert chunk.prompt_truncated
    assert chunk.instruction == 'reach ' * 50
    assert backend.inputs[1].tolist() == [True, False, False]


def test_when_nothing_is_missing_expect_nothing_reported(straight):
    policy, _ = straight
    chunk = policy.infer(OBSERVATION)
    assert chunk.missing_cameras == ()
    assert not chunk.prompt_truncated
    assert chunk.finite
    durations = dataclasses.astuple(chunk.timings)
    assert len(durations) == 4
    assert all(duration >= 0 for duration in durations)


def test_when_an_observation_is_refused_expect_the_next_one_served(plain_bundle):
    policy = Policy.load(plain_bundle(), backend='stub')
    with pytest.raises(ObservationError):
        policy.infer(Observation({'front': IMAGE}, [np.nan] * 7, 'reach'))
    assert policy.infer(OBSERVATION).finite


def test_when_the_bundle_tells_its_tokens_expect_a_text_with_another_refused(
    plain_bundle, seal_bundle
):
    folder = plain_bundle()
    tensors = {'text_model.embed_tokens.weight': {'shape': [3, 8]}, 'head.weight': {'shape': [1]}}
    (folder / 'parameters.json').write_text(json.dumps({'tensors': tensors}))
    seal_bundle(folder)
    policy = Policy.load(folder, backend='stub')
    with pytest.raises(ObservationError, match='instruction: .* knows only the first 3; leave'):
        policy.infer(OBSERVATION)


def test_when_the_deadline_comes_expect_the_chunk_given_up_between_two_steps(straight):
    policy, backend = straight
    policy.infer(OBSERVATION)
    backend.steps.clear()
    begin_s = time.perf_counter()
    with pytest.raises(DeadlineError, match='given up before step [234] of 4'):
        policy.infer(OBSERVATION, haste=Haste(begin_s + 0.5, injected_latency_s=1.0))
    assert len(backend.steps) in (1, 2, 3)
    assert time.perf_counter() - begin_s < 0.9


def test_when_the_deadline_is_far_expect_the_same_chunk(straight):
    policy, backend = straight
    free = policy.infer(OBSERVATION, noise_seed=3)
    backend.steps.clear()
    timed = policy.infer(OBSERVATION, noise_seed=3, haste=Haste(time.perf_counter() + 60.0))
    assert np.array_equal(free.raw, timed.raw)


def test_when_latency_is_injected_expect_it_in_the_time_of_sampling(straight):
    policy, _ = straight
    chunk = policy.infer(OBSERVATION, haste=Haste(injected_latency_s=0.2))
    assert chunk.timings.sample_s >= 0.2


def test_when_the_velocity_no_longer_changes_expect_the_rest_in_one_step(straight):
    policy, backend = straight
    full = policy.infer(OBSERVATION, noise_seed=3)
    backend.steps.clear()
    early = policy.infer(OBSERVATION, noise_seed=3, haste=Haste(adaptive_tolerance=1e-3))
    assert (full.denoise_steps, early.denoise_steps, len(backend.steps)) == (4, 2, 2)
    assert early.raw == pytest.approx(full.raw, abs=1e-5)


def test_when_the_tolerance_is_smaller_than_any_change_expect_all_steps(straight):
    policy, backend = straight
    backend.step = lambda prefix, x, t, dt: (x + dt * x, x)
    chunk = policy.infer(OBSERVATION, noise_seed=3, haste=Haste(adaptive_tolerance=1e-9))
    assert chunk.denoise_steps == 4


def test_when_fewer_steps_are_taken_expect_their_error_measured_in_robot_units(straight):
    policy, backend = straight
    # x' = x: exact is another curve than the line that the rest is taken along
    backend.step = lambda prefix, x, t, dt: (x + dt * (x + 1), x + 1)
    assert policy.adaptive_error(0.0) == 0.0
    after_one, after_all = 1.0, 1.0
    for _ in range(4):
        after_all -= 0.25 * after_all
    after_one = (1.0 - 0.25) * (1.0 - 0.75)
    assert policy.adaptive_error(10.0) == pytest.approx(0.5 * (after_all - after_one), rel=1e-5)


def test_when_served_as_the_reference_answers_expect_self_test_passed(plain_bundle):
    policy = Policy.load(plain_bundle(), backend='stub')
    result = policy.self_test()
    assert (result.max_abs, result.threshold, result.passed) == (0.0, 1e-4, True)


@pytest.mark.parametrize('target', [0.5, np.nan])
def test_when_served_otherwise_than_the_reference_expect_self_test_failed(straight, target):
    policy, backend = straight
    backend.target = np.float32(target)
    backend.step = lambda prefix, x, t, dt: (np.full_like(x, target), x)
    result = policy.self_test()
    assert not result.passed
    assert result.max_abs == 0.5 or np.isnan(result.max_abs)


def test_when_whole_chunks_and_steps_may_serve_expect_the_self_test_to_run_both(
    straight, monkeypatch
):
    policy, backend = straight
    def far(whole, stepped):
        monkeypatch.setattr(policy, '_whole', lambda inputs, noise: np.full_like(noise, whole))
        backend.step = lambda prefix, x, t, dt: (np.full_like(x, stepped), x)
        return policy.self_test().max_abs

    assert far(0.0, 0.0) == 0.0
    assert far(0.25, 0.0) == 0.25
    assert far(0.0, 0.5) == 0.5


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'backend': 'tensor_rt'}, "backend 'tensor_rt' is not one of onnx_runtime, torch_cuda"),
        ({'provider': 'cuda'}, "provider 'cuda' is not possible with backend stub; possible: cpu"),
        ({'precision': 'fp16'}, "precision 'fp16' is not possible"),
        ({'variant': 'unrolled'}, "variant 'unrolled' is not possible"),
    ],
)
def test_when_backend_cannot_do_what_is_asked_expect_error(plain_bundle, changes, message):
    with pytest.raises(PolicyError) as error:
        Policy.load(plain_bundle(), **{'backend': 'stub', **changes})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('normalizer.safetensors', b'{}', r'normalizer\.safetensors: cannot be read'),
        ('tokenizer.json', b'{}', r'tokenizer\.json: is not a tokenizer'),
        ('parameters.json', b'{}', r'parameters\.json: is no table of parameters'),
    ],
)
def test_when_sealed_file_cannot_be_used_expect_error_naming_it(
    plain_bundle, seal_bundle, name, content, message
):
    folder = plain_bundle()
    (folder / name).write_bytes(content)
    seal_bundle(folder)
    with pytest.raises(BundleError, match=message):
        Policy.load(folder, backend='stub')


def _without(arrays, key):
    del arrays[key]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda arrays: arrays.clear(), 'holds no fixture'),
        (lambda arrays: _without(arrays, 'fixture0/noise'), 'fixture0/noise is missing'),
        (
            lambda arrays: arrays.update({'fixture0/noise': np.zeros(3)}),
            r'fixture0/noise must be float32 \[6, 8\]',
        ),
    ],
)
def test_when_fixtures_cannot_be_used_expect_error_naming_the_array(
    plain_bundle, plain_contract, change, message
):
    path = plain_bundle() / 'fixtures.npz'
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(BundleError, match=message):
        fixture_files.read_fixtures(path, plain_contract)


def test_when_fixtures_are_not_an_archive_expect_error_naming_the_file(tmp_path, plain_contract):
    path = tmp_path / 'fixtures.npz'
    path.write_bytes(b'no archive')
    with pytest.raises(BundleError, match=r'fixtures\.npz: is not readable'):
        fixture_files.read_fixtures(path, plain_contract)


def test_when_time_is_embedded_expect_the_exact_sines_and_cosines():
    table = time_embeddings(TimeEmbedding(4, 0.5, 2.0), 2)
    angles = 2 * np.pi * np.array([[1.0], [0.5]]) / np.array([0.5, 2.0])
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    assert np.abs(table - expected).max() <= 1e-7
    assert table.dtype == np.float32


def test_when_there_is_no_compiled_image_code_expect_error_that_says_what_to_install(
    plain_bundle, monkeypatch, tmp_path
):
    monkeypatch.setattr(native, '__file__', str(tmp_path / 'native.py'))
    monkeypatch.setenv('VLA_DEPLOY_CACHE', str(tmp_path))
    monkeypatch.setenv('CC', 'no-such-compiler')
    native.resize_function.cache_clear()
    with pytest.raises(PolicyError, match=r'resize.c needs a C compiler.*build-essential'):
        Policy.load(plain_bundle(), backend='stub')
