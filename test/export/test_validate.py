# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""`validate export`: the ladder again, with exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from vla_deploy.cli.validate import main
from vla_deploy.export import revalidate
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.bundle import RECEIPT, WEIGHTS, open_bundle, seal_receipt

GOLDENS = Path(__file__).parents[1] / 'goldens'


@pytest.fixture
def bundle(golden_bundle):
    return golden_bundle('smolvla_2cam_empty')


def validate(bundle, *arguments):
    return main(['export', str(bundle), '--threads', '1', *map(str, arguments)])


def test_when_bundle_and_checkpoint_agree_expect_pass_with_every_rung(bundle, tmp_path, capsys):
    output = tmp_path / 'figures.json'
    checkpoint = GOLDENS / 'smolvla_2cam_empty' / 'checkpoint'
    assert validate(bundle, '--model', checkpoint, '--output-json', output) == 0
    summary = json.loads(output.read_text(encoding='ascii'))
    assert summary['passed']
    assert summary['model_sha256'] == open_bundle(bundle).model_sha256
    assert summary['parity']['worst']['graph_chunk']['max_abs'] <= 2e-6
    assert summary['parity']['target']['passed']
    assert capsys.readouterr().out.splitlines()[-1] == 'PASS'


def test_when_no_checkpoint_is_given_expect_rung_1_not_run(bundle, capsys):
    assert validate(bundle) == 0
    assert '| 0 | not run | not run |' in capsys.readouterr().out


def test_when_threshold_is_below_the_error_expect_exit_1_and_each_failure(bundle, capsys):
    assert validate(bundle, '--threshold', '1e-9') == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == 'FAIL'
    assert 'rung 2, actions, fixture 0' in captured.err
    assert 'rung 3, target' in captured.err


def test_when_the_receipt_allows_less_than_the_error_expect_exit_1_whatever_the_threshold(
    bundle, tmp_path, capsys
):
    copy = tmp_path / 'bundle'
    shutil.copytree(bundle, copy)
    receipt = dict(open_bundle(copy).receipt)
    receipt['thresholds'] = {**receipt['thresholds'], 'target_max_abs': 1e-9}
    (copy / RECEIPT).write_bytes(seal_receipt(receipt))
    assert not Policy.load(copy, threads=1).self_test().passed
    assert validate(copy) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == 'FAIL'
    (line,) = [line for line in captured.err.splitlines() if 'failed' in line]
    assert 'rung 3, target: max_abs' in line
    assert 'at most 1e-09, which the receipt says' in line


def test_when_one_byte_is_changed_expect_exit_2_naming_the_file(bundle, tmp_path, capsys):
    copy = tmp_path / 'bundle'
    shutil.copytree(bundle, copy)
    data = bytearray((copy / WEIGHTS).read_bytes())
    data[12345] ^= 1
    (copy / WEIGHTS).write_bytes(data)
    assert validate(copy) == 2
    assert f'{copy / WEIGHTS}: has been changed' in capsys.readouterr().err.splitlines()[-1]


def test_when_checkpoint_is_another_policy_expect_exit_2_naming_the_difference(bundle, capsys):
    assert validate(bundle, '--model', GOLDENS / 'smolvla_3cam' / 'checkpoint') == 2
    assert 'is not what the bundle was made from' in capsys.readouterr().err


def test_when_weights_are_another_training_expect_exit_1(bundle, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / 'golden'
    shutil.copytree(GOLDENS / 'smolvla_2cam_empty', folder)
    weights = folder / 'checkpoint' / 'model.safetensors'
    tensors = load_file(weights)
    tensors['model.action_out_proj.bias'] += 0.01
    save_file(tensors, weights)
    assert validate(bundle, '--model', folder / 'checkpoint') == 1
    assert 'rung 1, chunk, fixture 0' in capsys.readouterr().err


def test_when_bundle_is_not_a_folder_expect_exit_2(tmp_path, capsys):
    assert validate(tmp_path / 'absent') == 2
    assert 'is not a folder' in capsys.readouterr().err


def test_when_output_cannot_be_written_expect_exit_2(bundle, tmp_path, capsys):
    assert validate(bundle, '--output-json', tmp_path / 'no' / 'f.json') == 2
    assert 'No such file or directory' in capsys.readouterr().err


def test_when_an_error_is_unforeseen_expect_one_line_and_exit_2(
    bundle, monkeypatch, capsys, tmp_path
):
    def fail(*arguments):
        raise KeyError('surprise')

    monkeypatch.setattr(revalidate, 'validate_bundle', fail)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    assert validate(bundle) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("validate: unforeseen KeyError: 'surprise'; please report it with ")
    assert 'in fail' in Path(line.split()[-1]).read_text(encoding='utf-8')
