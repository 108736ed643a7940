# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The checkpoint that training writes, and the one that lies in policies/reach."""

import json

import numpy as np
import pytest
import torch
from reach_backbone import backbone_config, build_tokenizer
from reach_checkpoint import (
    CAMERA,
    image_statistics,
    policy_config,
    postprocessor_config,
    preprocessor_config,
    vector_statistics,
    write_checkpoint,
)
from reach_model import ReachPolicy, build_model, checkpoint_weights, encode
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from vla_deploy.export import smolvla
from vla_deploy.export.backbone import load_tokenizer
from vla_deploy.export.checkpoint import read_checkpoint
from vla_deploy.export.torch_pipeline import TorchPipeline
from vla_deploy.pipeline import Observation
from vla_deploy.sim import reach

WEIGHTS_LIMIT_BYTES = 10_000_000
STATE_FILE = 'policy_preprocessor_step_5_normalizer_processor.safetensors'


@pytest.fixture(scope='module')
def fresh(tmp_path_factory):
    """A checkpoint of random weights, as (folder, model, statistics)."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = build_model()
    statistics = (
        vector_statistics('observation.state', rng.normal(1.0, 0.5, (200, 7)))
        | vector_statistics('action', rng.normal(-1.0, 0.3, (200, 7)))
        | image_statistics(rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8))
    )
    folder = tmp_path_factory.mktemp('fresh') / 'checkpoint'
    write_checkpoint(folder, checkpoint_weights(model), statistics)
    return folder, model, statistics


def test_when_a_checkpoint_is_written_expect_the_exporter_to_load_it_strictly(fresh):
    folder, model, _ = fresh
    checkpoint = read_checkpoint(folder)
    loaded, dtypes = smolvla.load(checkpoint)
    assert dtypes == ('float32',)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    contract = smolvla.contract(checkpoint)
    assert contract.action.joints == contract.state.joints == reach.JOINTS
    assert contract.period_s == reach.STEP_PERIOD_S
    assert contract.action.first_sample_offset_steps == 1
    assert contract.camera_names == (CAMERA,)


def test_when_it_is_served_expect_the_same_chunk_as_in_training(fresh):
    folder, model, statistics = fresh
    checkpoint = read_checkpoint(folder)
    loaded, _ = smolvla.load(checkpoint)
    contract = smolvla.contract(checkpoint)
    served = TorchPipeline(
        loaded, contract, checkpoint.processors.statistics, load_tokenizer(checkpoint.tokenizer)
    )
    rng = np.random.default_rng(1)
    image = np.repeat(
        np.repeat(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8), 2, axis=0), 2, axis=1
    )
    position, noise = rng.normal(size=7), rng.standard_normal((16, 7)).astype(np.float32)
    observation = Observation({CAMERA: image}, position, 'reach the green cube')
    ours = ReachPolicy(model, statistics).chunks(
        image[None, ::2, ::2], position[None], ['reach the green cube'], noise[None]
    )[0]
    theirs = served.actions(served.chunk(served.inputs(observation), noise), observation)
    assert np.abs(ours - theirs).max() < 1e-5


def test_when_statistics_are_computed_expect_those_of_the_samples():
    values = np.arange(101, dtype=np.float64)[:, None] * np.array([1.0, -2.0])
    found = vector_statistics('action', values)
    assert found['action.mean'] == pytest.approx([50, -100])
    assert found['action.q10'] == pytest.approx([10, -180])
    assert found['action.std'] == pytest.approx(values.std(axis=0))
    assert found['action.count'] == [101]


def test_when_sentences_are_encoded_expect_words_newline_and_padding():
    ids, mask = encode(['reach the red cube', 'reach the purple cube\n'])
    names = [build_tokenizer().id_to_token(index) for index in ids[0]]
    assert names[:5] == ['reach', 'the', 'red', 'cube', '\n']
    assert mask.sum(axis=1).tolist() == [5, 5]
    assert build_tokenizer().id_to_token(ids[1][2]) == '<|endoftext|>'


def test_when_the_tokenizer_is_read_back_expect_the_same_ids(fresh):
    folder, _, _ = fresh
    read = Tokenizer.from_file(str(folder / 'backbone' / 'tokenizer.json'))
    for colour in reach.COLOURS:
        text = reach.instruction(colour) + '\n'
        assert read.encode(text).ids == build_tokenizer().encode(text).ids


def test_when_the_committed_policy_is_read_expect_what_the_tool_writes(reach_checkpoint_folder):
    def read(name):
        return json.loads((reach_checkpoint_folder / name).read_text(encoding='utf-8'))

    assert read('config.json') == policy_config()
    assert read('policy_preprocessor.json') == preprocessor_config()
    assert read('policy_postprocessor.json') == postprocessor_config()
    assert read('backbone/config.json') == backbone_config()
    tokenizer = (reach_checkpoint_folder / 'backbone' / 'tokenizer.json').read_text('utf-8')
    assert json.loads(tokenizer) == json.loads(build_tokenizer().to_str())


def test_when_the_committed_weights_are_read_expect_a_small_complete_file(reach_checkpoint_folder):
    weights = reach_checkpoint_folder / 'model.safetensors'
    assert weights.stat().st_size <= WEIGHTS_LIMIT_BYTES
    _, dtypes = smolvla.load(read_checkpoint(reach_checkpoint_folder))
    assert dtypes == ('float32',)


def test_when_the_committed_statistics_are_read_expect_those_of_demonstrations(
    reach_checkpoint_folder, few_demonstrations
):
    statistics = load_file(reach_checkpoint_folder / STATE_FILE)
    assert statistics['observation.state.count'][0] > 10_000
    low, high = (statistics[f'observation.state.{key}'] for key in ('min', 'max'))
    assert (few_demonstrations.position >= low - 0.1).all()
    assert (few_demonstrations.position <= high + 0.1).all()
    spread = np.abs(few_demonstrations.position.mean(axis=0) - statistics['observation.state.mean'])
    assert (spread < statistics['observation.state.std']).all()
