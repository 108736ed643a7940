# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Sizes of pi0 and pi0.5, which no checkpoint says, and processors that do not fit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from vla_deploy.cli.export import main as export_main
from vla_deploy.cli.validate import main as validate_main
from vla_deploy.export import pi
from vla_deploy.export.checkpoint import FAMILIES, read_checkpoint
from vla_deploy.export.families import FAMILIES as BUILT
from vla_deploy.export.golden import DIMS, golden_checkpoint
from vla_deploy.export.source import CheckpointError
from vla_deploy.pipeline.bundle import open_bundle, sha256_of_file

GOLDENS = Path(__file__).parents[1] / 'goldens'


@pytest.fixture(params=['pi0', 'pi05'])
def folder(request, tmp_path):
    """Return a copy of a golden folder."""
    for part in ('checkpoint', 'backbone'):
        shutil.copytree(GOLDENS / request.param / part, tmp_path / part)
    return tmp_path


def edit_json(path, change):
    values = json.loads(path.read_text(encoding='utf-8'))
    change(values)
    path.write_text(json.dumps(values), encoding='utf-8')


def contract(folder, dims=True, **changes):
    checkpoint = read_checkpoint(
        folder / 'checkpoint', dims=folder / DIMS if dims else None, **changes
    )
    return pi.contract(checkpoint)


def refused(folder, **changes):
    with pytest.raises(CheckpointError) as error:
        contract(folder, **changes)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_when_families_are_listed_expect_each_built():
    assert set(FAMILIES) == set(BUILT)


@pytest.mark.parametrize('name', ['pi0', 'pi05'])
def test_when_sizes_come_from_shapes_expect_the_recorded_ones(name):
    described = json.loads((GOLDENS / name / 'cases.json').read_text(encoding='utf-8'))['dims']
    config = pi.model_config(golden_checkpoint(GOLDENS / name))
    for ours, theirs in ((config.text, 'gemma_2b'), (config.expert, 'gemma_300m')):
        assert dataclasses.astuple(ours)[:6] == tuple(
            described[theirs][key]
            for key in ('width', 'mlp_dim', 'depth', 'num_heads', 'num_kv_heads', 'head_dim')
        )
    for key, value in described['vision'].items():
        assert getattr(config.vision, key) == value
    assert config.vision.image_size == described['image_size']
    assert config.vocab_size == described['vocab_size']


def test_when_heads_are_not_given_expect_the_published_and_a_note(folder):
    checkpoint = read_checkpoint(folder / 'checkpoint')
    config = pi.model_config(checkpoint)
    assert (config.text.num_attention_heads, config.vision.num_attention_heads) == (8, 16)
    (note,) = pi.notes(checkpoint)
    assert 'pass --dims FILE' in note
    assert not pi.notes(golden_checkpoint(GOLDENS / 'pi0'))


def test_when_heads_are_given_expect_them(folder):
    def fewer(dims):
        for part in (dims['paligemma']['text_config'], dims['gemma_expert']):
            part.update(num_attention_heads=4, head_dim=32)
            del part['num_key_value_heads']

    # 16 rows of keys cannot be a head of 32
    edit_json(folder / DIMS, fewer)
    assert 'cannot share' in refused(folder)
    edit_json(folder / DIMS, lambda dims: dims['paligemma']['vision_config'].update(
        num_attention_heads=7
    ))
    assert 'does not divide into 7 heads' in refused(folder)


@pytest.mark.parametrize('key', ['hidden_size', 'num_hidden_layers', 'intermediate_size'])
def test_when_given_sizes_contradict_the_tensors_expect_both(folder, key):
    edit_json(folder / DIMS, lambda dims: dims['gemma_expert'].update({key: 77}))
    assert f'{key} is 77, but the tensors say' in refused(folder)


def test_when_image_resolution_does_not_fit_expect_both(folder):
    edit_json(
        folder / 'checkpoint' / 'config.json', lambda c: c.update(image_resolution=[224, 224])
    )
    assert 'image_resolution is [224, 224]' in refused(folder)


def make_relative(folder, names=None, **changes):
    """Say in all three files that actions are differences to the state."""
    checkpoint = folder / 'checkpoint'
    edit_json(checkpoint / 'config.json', lambda c: c.update(use_relative_actions=True))
    for file, which in (('pre', 'relative'), ('post', 'absolute')):

        def enable(values, name=f'{which}_actions_processor'):
            for step in values['steps']:
                if step['registry_name'] == name:
                    step['config']['enabled'] = True
                    if 'action_names' in step['config']:
                        step['config'].update(action_names=names, **changes)

        edit_json(checkpoint / f'policy_{file}processor.json', enable)


JOINTS = [f'joint{i}.pos' for i in range(6)]


@pytest.mark.parametrize(
    ('names', 'excluded', 'dims'),
    [
        (None, ['gripper'], (0, 1, 2, 3, 4, 5, 6)),
        ([*JOINTS, 'Gripper.pos'], ['gripper'], (0, 1, 2, 3, 4, 5)),
        ([*JOINTS, 'gripper.pos'], ['joint3', 'pos5', ''], (0, 1, 2, 4, 5, 6)),
        (JOINTS[:3], ['joint1'], (0, 2, 3, 4, 5, 6)),
    ],
)
def test_when_actions_are_relative_expect_the_dims_in_the_contract(folder, names, excluded, dims):
    assert contract(folder).action.delta_dims == ()
    make_relative(folder, names, exclude_joints=excluded)
    action = contract(folder).action
    assert (action.semantics, action.delta_dims) == ('delta', dims)


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('config.json', 'use_relative_actions is False, the processors differ'),
        ('policy_preprocessor.json', 'only one of relative_actions_processor and'),
        ('policy_postprocessor.json', 'only one of relative_actions_processor and'),
    ],
)
def test_when_files_disagree_on_relative_actions_expect_a_refusal(folder, file, message):
    before = (folder / 'checkpoint' / file).read_bytes()
    make_relative(folder)
    (folder / 'checkpoint' / file).write_bytes(before)
    assert message in refused(folder)


@pytest.mark.parametrize('file', ['policy_preprocessor.json', 'policy_postprocessor.json'])
def test_when_relative_actions_are_in_the_normalized_space_expect_a_refusal(folder, file):
    make_relative(folder)

    def swap(values):
        names = [step['registry_name'] for step in values['steps']]
        relative = next(i for i, name in enumerate(names) if '_actions_' in name)
        normalizer = next(i for i, name in enumerate(names) if 'normalizer' in name)
        steps = values['steps']
        steps[relative], steps[normalizer] = steps[normalizer], steps[relative]

    edit_json(folder / 'checkpoint' / file, swap)
    assert 'normalizer' in refused(folder)


def test_when_prompt_is_of_the_other_family_expect_a_refusal(folder):
    edit_json(
        folder / 'checkpoint' / 'config.json',
        lambda c: c.update(type='pi0' if c['type'] == 'pi05' else 'pi05'),
    )
    assert 'processors make' in refused(folder) or 'lacks' in refused(folder)


def test_when_state_text_stands_before_the_normalizer_expect_a_refusal(tmp_path):
    shutil.copytree(GOLDENS / 'pi05' / 'checkpoint', tmp_path / 'checkpoint')

    def move_first(values):
        values['steps'].sort(key=lambda s: 'pi05_prepare' not in s['registry_name'])

    edit_json(tmp_path / 'checkpoint' / 'policy_preprocessor.json', move_first)
    shutil.copytree(GOLDENS / 'pi05' / 'backbone', tmp_path / 'backbone')
    assert 'between normalizer and tokenizer' in refused(tmp_path)


def test_when_tokenizer_is_nowhere_expect_what_to_pass(folder):
    shutil.rmtree(folder / 'backbone')
    line = refused(folder, dims=False)
    assert "'google/paligemma-3b-pt-224' is not in it" in line
    assert 'pass --tokenizer DIR' in line


def test_when_tokenizer_begins_no_prompt_expect_a_refusal(folder):
    edit_json(folder / 'backbone' / 'tokenizer.json', lambda t: t.update(post_processor=None))
    assert 'does not begin a prompt with <bos>' in refused(folder)


def test_when_tokenizer_was_saved_with_padding_on_expect_it_taken(folder):
    path = folder / 'backbone' / 'tokenizer.json'
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_padding(length=48)
    tokenizer.enable_truncation(8)
    assert len(tokenizer.encode('').ids) == 48
    tokenizer.save(str(path))
    assert contract(folder)


def test_when_dims_are_given_to_smolvla_expect_a_refusal(folder):
    with pytest.raises(CheckpointError, match='drop --dims'):
        read_checkpoint(GOLDENS / 'smolvla_3cam' / 'checkpoint', dims=folder / DIMS)


def test_when_a_layer_is_missing_expect_a_tensor_named(folder):
    path = folder / 'checkpoint' / 'model.safetensors'
    tensors = load_file(path)
    name = 'model.paligemma_with_expert.gemma_expert.model.layers.1.mlp.up_proj.weight'
    del tensors[name]
    save_file(tensors, path)
    checkpoint = read_checkpoint(folder / 'checkpoint', dims=folder / DIMS)
    with pytest.raises(CheckpointError, match=f'lacks {name}'):
        pi.load(checkpoint)


def test_when_dims_are_given_on_the_command_line_expect_export_to_read_them(folder, capsys):
    edit_json(folder / DIMS, lambda dims: dims['gemma_expert'].update(hidden_size=77))
    target = folder / 'bundle'
    arguments = ['--model', folder / 'checkpoint', '--output', target, '--dims', folder / DIMS]
    assert export_main([str(argument) for argument in arguments]) == 2
    assert 'hidden_size is 77' in capsys.readouterr().err
    assert not target.exists()


def test_when_validated_with_other_heads_expect_rung_1_to_fail(golden_bundle, capsys):
    bundle, folder = golden_bundle('pi0'), GOLDENS / 'pi0'
    arguments = ['export', str(bundle), '--threads', '1', '--model', str(folder / 'checkpoint')]
    assert validate_main([*arguments, '--dims', str(folder / DIMS)]) == 0
    assert validate_main(arguments) == 1
    assert 'rung 1, chunk, fixture 0' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['pi0', 'pi05'])
def test_when_bundle_is_made_expect_family_and_reference_in_its_receipt(golden_bundle, name):
    receipt = open_bundle(golden_bundle(name)).receipt
    assert receipt['family'] == name
    assert receipt['reference']['reference']['lerobot'] == '0.6.1'
    assert receipt['reference']['cases'][name]['cases'] == 6
    assert receipt['reference']['changed_sources'] == []
    assert set(receipt['parity']['variants']) == {'unrolled', 'loop'}
    assert receipt['checkpoint']['dims_sha256'] == sha256_of_file(GOLDENS / name / DIMS)
    for variant in receipt['parity']['variants'].values():
        assert variant == {'bit_identical': True, 'max_abs': 0.0}
    report = (golden_bundle(name) / 'VERIFICATION.md').read_text(encoding='utf-8')
    assert f'# Verification of this bundle ({name})' in report
