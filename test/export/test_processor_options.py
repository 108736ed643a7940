# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Options of processor steps: what would change a number is refused, by file, step and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vla_deploy.export.checkpoint import read_checkpoint
from vla_deploy.export.source import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
PREPROCESSOR, POSTPROCESSOR = 'policy_preprocessor.json', 'policy_postprocessor.json'
STATE = 'observation.state'


@pytest.fixture
def with_options(checkpoint, edit_json):
    """Return a function that gives a step options and reads the checkpoint."""

    def read(name, file=PREPROCESSOR, **options):
        def change(values):
            (step,) = [s for s in values['steps'] if s['registry_name'] == name]
            step['config'].update(options)

        edit_json(file, change)
        return read_checkpoint(checkpoint)

    return read


def refused(with_options, *arguments, **options):
    with pytest.raises(CheckpointError) as error:
        with_options(*arguments, **options)
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize('value', ['float16', 'bfloat16', 'half', 'float64', 16])
@pytest.mark.parametrize('file', [PREPROCESSOR, POSTPROCESSOR])
def test_when_a_device_step_casts_floats_expect_a_refusal(with_options, file, value):
    line = refused(with_options, 'device_processor', file, float_dtype=value)
    assert f'{file}: device_processor: float_dtype {value!r}' in line


@pytest.mark.parametrize('value', [None, 'float32'])
def test_when_a_device_step_leaves_float32_expect_it_taken(with_options, value):
    assert with_options('device_processor', float_dtype=value)


@pytest.mark.parametrize('keys', [[], ['observation.images.camera1'], STATE])
def test_when_the_state_is_not_among_the_normalized_keys_expect_a_refusal(with_options, keys):
    line = refused(with_options, 'normalizer_processor', normalize_observation_keys=keys)
    assert f'{PREPROCESSOR}: normalizer_processor: normalize_observation_keys' in line
    assert f'lacks {STATE}' in line


@pytest.mark.parametrize('keys', [None, [STATE], ['observation.images.camera1', STATE]])
def test_when_the_state_is_among_the_normalized_keys_expect_it_taken(with_options, keys):
    assert with_options('normalizer_processor', normalize_observation_keys=keys)


@pytest.mark.parametrize('features', [{}, {STATE: {'type': 'ENV', 'shape': [6]}}])
def test_when_the_normalizer_does_not_know_the_state_expect_a_refusal(with_options, features):
    line = refused(with_options, 'normalizer_processor', features=features)
    assert f'{PREPROCESSOR}: normalizer_processor: features names no {STATE}' in line


def test_when_the_state_is_not_to_be_normalized_expect_no_feature_asked_for(with_options):
    norm_map = {'VISUAL': 'IDENTITY', 'STATE': 'IDENTITY', 'ACTION': 'MEAN_STD'}
    read = with_options('normalizer_processor', features={}, norm_map=norm_map)
    assert read.processors.state.mode == 'identity'


@pytest.mark.parametrize(
    ('file', 'name'),
    [
        (PREPROCESSOR, 'rename_observations_processor'),
        (PREPROCESSOR, 'to_batch_processor'),
        (PREPROCESSOR, 'smolvla_new_line_processor'),
        (PREPROCESSOR, 'tokenizer_processor'),
        (PREPROCESSOR, 'device_processor'),
        (PREPROCESSOR, 'normalizer_processor'),
        (POSTPROCESSOR, 'unnormalizer_processor'),
    ],
)
def test_when_an_option_is_unknown_expect_file_step_and_key(with_options, file, name):
    line = refused(with_options, name, file, gain=2.0)
    assert f"{file}: {name}: key 'gain' is not supported" in line


def test_when_the_text_comes_from_another_key_expect_a_refusal(with_options):
    line = refused(with_options, 'tokenizer_processor', task_key='subtask')
    assert "tokenizer_processor: task_key 'subtask' is not supported, only 'task'" in line


@pytest.mark.parametrize(
    'folder',
    ['policies/reach', *(f'test/goldens/{name}/checkpoint' for name in (
        'pi0', 'pi05', 'smolvla_2cam_empty', 'smolvla_3cam'
    ))],
)
def test_when_the_options_are_those_that_lerobot_writes_expect_them_taken(folder):
    assert json.loads((ROOT / folder / PREPROCESSOR).read_text(encoding='utf-8'))['steps']
    assert read_checkpoint(ROOT / folder).processors
