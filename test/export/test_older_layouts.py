# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in older layouts: rewritten golden ones, which must give the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vla_deploy.export.backbone import load_tokenizer
from vla_deploy.export.checkpoint import read_checkpoint
from vla_deploy.export.families import family_of
from vla_deploy.export.golden import DIMS, golden_cases
from vla_deploy.export.source import CheckpointError
from vla_deploy.export.torch_pipeline import TorchPipeline

GOLDENS = Path(__file__).parents[1] / 'goldens'
EMBEDDING = 'model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight'
HEAD = 'model.paligemma_with_expert.paligemma.lm_head.weight'
EXPERT_HEAD = 'model.paligemma_with_expert.gemma_expert.lm_head.weight'
STATE, ACTION = 'normalize_inputs.buffer_observation_state', 'unnormalize_outputs.buffer_action'


@pytest.fixture
def copy(tmp_path):
    """Return a function that copies a golden folder."""

    def make(name):
        for part in ('checkpoint', 'backbone'):
            shutil.copytree(GOLDENS / name / part, tmp_path / part)
        return tmp_path

    return make


def rewrite(folder, edit):
    path = folder / 'checkpoint' / 'model.safetensors'
    save_file(edit(load_file(path)), path)


def without_model(tensors):
    return {name.removeprefix('model.'): value for name, value in tensors.items()}


def only_head(tensors):
    """Keep the head that the embedding is tied to, and not the embedding."""
    embedding = tensors.pop(EMBEDDING)
    return {**tensors, HEAD: embedding}


def no_heads(tensors):
    return {name: value for name, value in tensors.items() if 'lm_head' not in name}


def other_time_mlp(tensors):
    """Give the time MLP the name that the other family has for it."""
    if 'model.time_mlp_in.weight' in tensors:
        swap = ('model.time_mlp_', 'model.action_time_mlp_')
    else:
        swap = ('model.action_time_mlp_', 'model.time_mlp_')
    return {name.replace(*swap): value for name, value in tensors.items()}


def move_statistics(folder):
    """Put the statistics beside the weights, and drop the files of processors."""
    checkpoint = folder / 'checkpoint'
    tensors = load_file(checkpoint / 'model.safetensors')
    for file in ('policy_preprocessor.json', 'policy_postprocessor.json'):
        for step in json.loads((checkpoint / file).read_text())['steps']:
            if 'state_file' not in step:
                continue
            for name, value in load_file(checkpoint / step['state_file']).items():
                key, what = name.rsplit('.', 1)
                start = 'normalize_inputs' if 'pre' in file else 'unnormalize_outputs'
                tensors[f'{start}.buffer_{key.replace(".", "_")}.{what}'] = value.clone()
            (checkpoint / step['state_file']).unlink(missing_ok=True)
        (checkpoint / file).unlink()
    save_file(tensors, checkpoint / 'model.safetensors')


def outputs(folder, cases):
    """Return the chunk and the actions of case 0, from its raw observation."""
    torch.set_num_threads(1)
    dims = folder / DIMS
    checkpoint = read_checkpoint(folder / 'checkpoint', dims=dims if dims.is_file() else None)
    model, _ = family_of(checkpoint).load(checkpoint)
    contract = family_of(checkpoint).contract(checkpoint)
    statistics, tokenizer = checkpoint.processors.statistics, load_tokenizer(checkpoint.tokenizer)
    pipeline = TorchPipeline(model, contract, statistics, tokenizer)
    case = next(golden_cases(cases, contract))
    chunk = pipeline.chunk(pipeline.inputs(case.observation), case.noise)
    return contract, chunk, pipeline.actions(chunk, case.observation)


def require_same(name, folder):
    theirs, expected = outputs(folder, GOLDENS / name), outputs(GOLDENS / name, GOLDENS / name)
    assert theirs[0] == expected[0]
    for ours, recorded in zip(theirs[1:], expected[1:], strict=True):
        assert np.array_equal(ours, recorded)


@pytest.mark.parametrize('name', ['pi0', 'pi05'])
@pytest.mark.parametrize('edit', [without_model, only_head, no_heads, other_time_mlp])
def test_when_names_are_older_expect_the_same_numbers(copy, name, edit):
    folder = copy(name)
    rewrite(folder, edit)
    require_same(name, folder)


@pytest.mark.parametrize('name', ['smolvla_3cam', 'pi0', 'pi05'])
def test_when_statistics_are_in_the_weights_expect_the_same_numbers(copy, name):
    folder = copy(name)
    move_statistics(folder)
    require_same(name, folder)


def test_when_everything_is_older_at_once_expect_the_same_numbers(copy):
    folder = copy('pi0')
    for edit in (only_head, other_time_mlp, without_model):
        rewrite(folder, edit)
    move_statistics(folder)
    require_same('pi0', folder)


def read_whole(folder):
    checkpoint = read_checkpoint(folder / 'checkpoint', dims=folder / DIMS)
    family_of(checkpoint).contract(checkpoint)
    family_of(checkpoint).load(checkpoint)


def refused(folder):
    with pytest.raises(CheckpointError) as error:
        read_whole(folder)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_when_a_tensor_has_both_names_expect_them_named(copy):
    folder = copy('pi0')
    name = 'model.action_time_mlp_in.weight'
    rewrite(folder, lambda t: {**t, 'model.time_mlp_in.weight': t[name].clone()})
    line = refused(folder)
    assert 'holds both' in line
    assert name in line
    assert 'model.time_mlp_in.weight' in line


def test_when_neither_embedding_nor_head_is_there_expect_the_embedding_named(copy):
    folder = copy('pi0')
    rewrite(folder, lambda t: {k: v for k, v in t.items() if k not in (EMBEDDING, HEAD)})
    assert f'lacks {EMBEDDING}' in refused(folder)


def test_when_old_statistics_lack_one_expect_its_name(copy):
    folder = copy('pi05')
    move_statistics(folder)
    rewrite(folder, lambda t: {k: v for k, v in t.items() if k != f'{STATE}.q99'})
    assert f'needs {STATE}.q99' in refused(folder)


def test_when_old_statistics_were_never_computed_expect_it_said(copy):
    folder = copy('pi0')
    move_statistics(folder)
    name = f'{ACTION}.std'
    rewrite(folder, lambda t: {**t, name: torch.full_like(t[name], torch.inf)})
    assert 'action.std holds NaN or infinity' in refused(folder)


def test_when_neither_processors_nor_statistics_are_there_expect_the_file_named(copy):
    folder = copy('pi0')
    for file in ('policy_preprocessor.json', 'policy_postprocessor.json'):
        (folder / 'checkpoint' / file).unlink()
    assert 'policy_preprocessor.json: is missing' in refused(folder)
