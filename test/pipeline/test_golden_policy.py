# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The served pipeline against the recorded cases of the reference, its own processors included."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from vla_deploy.pipeline import Guidance, Policy
from vla_deploy.pipeline.normalize import read_statistics
from vla_deploy.pipeline.observation import check_observation

parity = pytest.importorskip('vla_deploy.export.parity')  # export needs torch
GOLDENS = ('smolvla_3cam', 'smolvla_2cam_empty', 'pi0', 'pi05')


@pytest.fixture(scope='module', params=GOLDENS)
def served(request, golden_bundle, golden_cases):
    folder = golden_bundle(request.param)
    return Policy.load(folder, threads=1), golden_cases(request.param), folder


def preprocessed(policy, case):
    return policy._preprocess(check_observation(case.observation, policy.contract))


def test_when_images_are_preprocessed_expect_the_references(served):
    policy, cases, _ = served
    for case in cases:
        (inputs, _), expected = preprocessed(policy, case), case.arrays['images_pre']
        count = len(expected)
        assert np.abs(inputs.images[:count] - expected).max() <= 1e-6
        # the reference drops further slots; ours are there and masked
        assert np.array_equal(inputs.image_mask[:count], case.arrays['image_mask'])
        assert not inputs.image_mask[count:].any()
        assert (inputs.images[count:] == -1.0).all()


def test_when_instructions_are_tokenized_expect_the_references_ids_and_masks(served):
    policy, cases, _ = served
    for case in cases:
        (inputs, prompt), count = preprocessed(policy, case), len(case.arrays['tokens'])
        assert np.array_equal(inputs.tokens[:count], case.arrays['tokens'])
        assert np.array_equal(inputs.token_mask[:count], case.arrays['token_mask'])
        assert not inputs.token_mask[count:].any()
        assert prompt.truncated == case.truncated


def test_when_states_are_normalized_expect_the_references(served):
    policy, cases, _ = served
    for case in cases:
        state = preprocessed(policy, case)[0].state
        if 'state_norm_pad' in case.arrays:
            expected = case.arrays['state_norm_pad']
        else:  # pi0.5 writes the state into its text, so that it is never padded
            expected = case.arrays['state_norm']
            assert not state[len(expected) :].any()
            state = state[: len(expected)]
        error = np.abs(state - expected)
        assert (error <= 1e-6 * np.maximum(1, np.abs(expected))).all()


def test_when_actions_are_unnormalized_expect_the_references_to_the_bit(served):
    policy, cases, _ = served
    for case in cases:
        robot = policy._to_robot(case.arrays['chunk_model'], case.arrays['state'])
        assert np.array_equal(robot, case.arrays['chunk_robot'])


def test_when_raw_observation_is_served_expect_the_references_chunk(served):
    policy, cases, folder = served
    scale = parity.action_scale(policy.contract, read_statistics(folder / 'normalizer.safetensors'))
    for case in cases:
        chunk = policy.infer(case.observation, noise=case.arrays['noise'][0])
        expected = case.arrays['chunk_model']
        assert np.abs(chunk.raw - expected).max() <= 5e-6
        a, b = chunk.raw.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= 0.9999999
        error = np.abs(chunk.actions - case.arrays['chunk_robot'])
        assert (error <= 5e-6 * scale).all()


def test_when_guided_by_what_is_left_expect_the_references_chunk(served):
    policy, cases, _ = served
    guided = 0
    for case in cases:
        for index, rtc in enumerate(case.rtc):
            recorded = {k: case.arrays[f'rtc{index}/{k}'] for k in ('prev', 'chunk_model')}
            guidance = Guidance(
                recorded['prev'],
                rtc['inference_delay'],
                rtc['execution_horizon'],
                rtc['schedule'].lower(),
                rtc['max_guidance_weight'],
            )
            noise = case.arrays['noise'][0]
            chunk = policy.infer(case.observation, noise=noise, guidance=guidance)
            assert np.abs(chunk.raw - recorded['chunk_model']).max() <= 1e-5
            assert np.abs(chunk.raw - case.arrays['chunk_model']).max() > 0.1
            guided += 1
    assert guided == 7


def test_when_text_is_too_long_for_a_state_in_it_expect_the_loss_reported(served):
    policy, cases, _ = served
    reads_text = policy.contract.tokenizer.prompt == 'instruction_and_state'
    for case in cases:
        _, prompt = preprocessed(policy, case)
        assert prompt.state_lost == (case.truncated and reads_text)


def test_when_loaded_expect_self_test_passed(served):
    result = served[0].self_test()
    assert result.passed
    assert result.cosine >= 0.9999999


def test_when_torch_transformers_and_lerobot_cannot_be_imported_expect_chunks(golden_bundle):
    program = textwrap.dedent("""
        import sys
        for name in ('torch', 'transformers', 'lerobot', 'onnx', 'onnxscript'):
            sys.modules[name] = None
        from vla_deploy.pipeline import Policy
        result = Policy.load(sys.argv[1], threads=1).self_test()
        assert result.passed, result
        print('served')
    """)
    folder = golden_bundle(GOLDENS[0])
    done = subprocess.run(
        [sys.executable, '-c', program, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == 'served', done.stderr
