# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that cannot be exported: one line that says what to do, exit 2, nothing written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from vla_deploy.cli.export import main

WEIGHT = 'model.state_proj.weight'
PREPROCESSOR = 'policy_preprocessor.json'
STATE_FILE = 'policy_preprocessor_step_5_normalizer_processor.safetensors'


@pytest.fixture
def refused(checkpoint, capsys):
    """Return a function that exports, expects exit 2 and no file, and gives the one line."""

    def run(*arguments, model=checkpoint):
        target = checkpoint.parent / 'bundle'
        before = sorted(checkpoint.parent.rglob('*'))
        assert main(['--model', str(model), '--output', str(target), *arguments]) == 2
        assert sorted(checkpoint.parent.rglob('*')) == before
        errors = [
            line for line in capsys.readouterr().err.splitlines() if ' s  ' not in line[:18]
        ]
        assert len(errors) == 1
        return errors[0]

    return run


@pytest.fixture
def change_weights(checkpoint):
    """Return a function that changes the checkpoint's tensors in place."""

    def change(edit):
        tensors = load_file(checkpoint / 'model.safetensors')
        edit(tensors)
        save_file(tensors, checkpoint / 'model.safetensors')

    return change


def test_when_path_is_a_file_expect_it_said(refused, checkpoint):
    assert 'is not a folder; give the checkpoint folder' in refused(
        model=checkpoint / 'config.json'
    )


@pytest.mark.parametrize(
    'name',
    ['config.json', 'model.safetensors', PREPROCESSOR, 'policy_postprocessor.json', STATE_FILE],
)
def test_when_file_is_missing_expect_its_name(refused, checkpoint, name):
    (checkpoint / name).unlink()
    assert name in refused()


def test_when_family_is_unknown_expect_the_known_ones(refused, edit_json):
    edit_json('config.json', lambda config: config.update(type='grasper'))
    assert "family 'grasper' is not known; known: smolvla" in refused()


def test_when_family_is_not_the_expected_one_expect_both_named(refused):
    line = refused('--family', 'pi0')
    assert "type is 'smolvla'" in line
    assert "--family says 'pi0'" in line


@pytest.mark.parametrize('keep', [4, 1000, 3_000_000])
def test_when_weights_are_cut_off_expect_it_said(refused, checkpoint, keep):
    path = checkpoint / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:keep])
    line = refused()
    assert 'model.safetensors: cannot be read, copy it again' in line


def test_when_tensor_is_missing_expect_its_name(refused, change_weights):
    change_weights(lambda tensors: tensors.pop(WEIGHT))
    assert f'lacks {WEIGHT}' in refused()


def test_when_tensor_is_left_over_expect_its_name(refused, change_weights):
    change_weights(lambda tensors: tensors.update({'model.extra': torch.zeros(2)}))
    assert 'holds the unknown tensor model.extra' in refused()


def test_when_shape_differs_expect_both_shapes(refused, change_weights):
    change_weights(lambda tensors: tensors.update({WEIGHT: torch.zeros(96, 31)}))
    line = refused()
    assert WEIGHT in line
    assert '[96, 31]' in line
    assert '[96, 32]' in line


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_when_weight_is_not_finite_expect_its_name(refused, change_weights, value):
    change_weights(lambda tensors: tensors[WEIGHT].__setitem__((3, 5), value))
    assert f'{WEIGHT} holds NaN or infinity' in refused()


def test_when_weights_are_integers_expect_their_dtype(refused, change_weights):
    change_weights(lambda tensors: tensors.update({WEIGHT: torch.zeros(96, 32, dtype=torch.int8)}))
    assert f'{WEIGHT} has dtype torch.int8' in refused()


def change_statistics(checkpoint, edit):
    arrays = load_arrays(checkpoint / STATE_FILE)
    edit(arrays)
    save_arrays(arrays, checkpoint / STATE_FILE)


def test_when_statistic_is_nan_expect_its_name(refused, checkpoint):
    change_statistics(checkpoint, lambda a: a['observation.state.mean'].__setitem__(1, np.nan))
    assert 'observation.state.mean holds NaN or infinity' in refused()


def test_when_std_is_negative_expect_it_said(refused, checkpoint):
    change_statistics(checkpoint, lambda a: a['observation.state.std'].__setitem__(1, -1))
    assert 'observation.state.std is negative' in refused()


def test_when_statistic_is_missing_expect_its_name(refused, checkpoint):
    change_statistics(checkpoint, lambda a: a.pop('observation.state.std'))
    assert 'mode MEAN_STD needs observation.state.std' in refused()


def test_when_statistic_has_another_length_expect_both_lengths(refused, checkpoint):
    change_statistics(
        checkpoint, lambda a: a.update({'observation.state.std': np.ones(5, np.float32)})
    )
    assert 'statistics state.std have 5 elements, but config.json says 6' in refused()


def test_when_state_file_points_outside_expect_refusal(refused, edit_json):
    edit_json(PREPROCESSOR, lambda p: p['steps'][5].update(state_file='../other.safetensors'))
    assert "state_file '../other.safetensors' must be a file name in this folder" in refused()


def test_when_processor_step_is_unknown_expect_its_name(refused, edit_json):
    step = {'registry_name': 'crop_processor', 'config': {}}
    edit_json(PREPROCESSOR, lambda p: p['steps'].insert(0, step))
    assert "step 'crop_processor' is not supported" in refused()


def test_when_json_is_broken_expect_the_file(refused, checkpoint):
    (checkpoint / PREPROCESSOR).write_text('{"steps": [', encoding='utf-8')
    assert f'{PREPROCESSOR}: is not JSON' in refused()


def test_when_normalization_is_unknown_expect_its_name(refused, edit_json):
    edit_json(
        PREPROCESSOR, lambda p: p['steps'][5]['config']['norm_map'].update(STATE='WHITENED')
    )
    assert 'STATE is normalised with WHITENED' in refused()


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('adapt_to_pi_aloha', True),
        ('add_image_special_tokens', True),
        ('attention_mode', 'self_attn'),
        ('n_obs_steps', 2),
        ('use_peft', True),
        ('num_expert_layers', 2),
        ('chunk_size', '10'),
        ('resize_imgs_with_padding', [64, 80]),
    ],
)
def test_when_option_is_not_built_expect_its_name(refused, edit_json, key, value):
    edit_json('config.json', lambda config: config.update({key: value}))
    line = refused()
    assert key in line or 'images must be square' in line


def test_when_option_is_missing_expect_its_name(refused, edit_json):
    edit_json('config.json', lambda config: config.pop('chunk_size'))
    assert "key 'chunk_size' is missing" in refused()


def test_when_backbone_is_unknown_expect_what_to_do(refused, checkpoint):
    (checkpoint.parent / 'backbone').rename(checkpoint.parent / 'words')
    line = refused('--tokenizer', str(checkpoint.parent / 'words'))
    assert "backbone 'backbone' is not known; put its config.json into" in line


def test_when_tokenizer_is_missing_expect_the_option(refused, checkpoint):
    (checkpoint.parent / 'backbone' / 'tokenizer.json').unlink()
    assert 'pass --tokenizer DIR' in refused()


def test_when_tokenizer_is_no_tokenizer_expect_its_path(refused, checkpoint):
    (checkpoint.parent / 'backbone' / 'tokenizer.json').write_text('{}', encoding='utf-8')
    assert 'tokenizer.json: is not a tokenizer' in refused()


def test_when_padding_token_is_unknown_expect_its_name(refused, checkpoint):
    config = checkpoint.parent / 'backbone' / 'tokenizer_config.json'
    config.write_text('{"pad_token": "<none>"}', encoding='utf-8')
    assert "pad_token '<none>' is not in tokenizer.json" in refused()


def test_when_no_padding_token_is_named_expect_what_to_do(refused, checkpoint):
    (checkpoint.parent / 'backbone' / 'tokenizer_config.json').unlink()
    assert 'put tokenizer_config.json with pad_token beside it' in refused()


ROBOT_IO = """period_s: 0.1
state: {{joints: [a, b, c, d, e, f], units: [rad, rad, rad, rad, rad, rad]}}
action:
  joints: [a, b, c, d, e, f]
  units: [rad, rad, rad, rad, rad, rad]
  control_mode: {mode}
  first_sample_offset_steps: 1
cameras: {cameras}
"""


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (ROBOT_IO.format(mode='torque', cameras='null'), "control_mode is 'torque'"),
        (ROBOT_IO.format(mode='position', cameras='[{key: k, name: n}]'), "has no camera 'k'"),
        ('period_s: 0.1\nstate: {joints: [a]}\n', 'missing key'),
        (ROBOT_IO.format(mode='position', cameras='null').replace('[a, ', '[', 1), 'state.joints'),
    ],
)
def test_when_robot_io_is_wrong_expect_the_key(refused, checkpoint, text, message):
    (checkpoint / 'robot_io.yaml').write_text(text, encoding='utf-8')
    assert message in refused()


def test_when_output_exists_expect_it_untouched(checkpoint, capsys):
    target = checkpoint.parent / 'bundle'
    target.mkdir()
    (target / 'mine').write_text('kept', encoding='utf-8')
    assert main(['--model', str(checkpoint), '--output', str(target)]) == 2
    assert 'exists already; remove it or name another folder' in capsys.readouterr().err
    assert (target / 'mine').read_text(encoding='utf-8') == 'kept'


def test_when_parent_of_output_is_missing_expect_it_named(checkpoint, capsys):
    target = checkpoint.parent / 'no' / 'bundle'
    assert main(['--model', str(checkpoint), '--output', str(target)]) == 2
    assert f'{target.parent} is not a folder; make it first' in capsys.readouterr().err


def test_when_steps_are_zero_expect_it_said(refused):
    assert '--steps is 0, but must be at least 1' in refused('--steps', '0')



def test_when_there_are_no_threads_expect_it_said(refused):
    assert 'threads is -1, but must be at least 1' in refused('--threads', '-1')
