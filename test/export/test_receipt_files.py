# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The receipt digests what was read of a checkpoint, whatever else lies in its folder."""

from __future__ import annotations

import shutil

import pytest

from vla_deploy.export.build import ExportOptions, export_bundle
from vla_deploy.pipeline.bundle import sha256_of_file

READ = {
    'config.json',
    'model.safetensors',
    'policy_preprocessor.json',
    'policy_preprocessor_step_5_normalizer_processor.safetensors',
    'policy_postprocessor.json',
    'policy_postprocessor_step_0_unnormalizer_processor.safetensors',
}


@pytest.fixture
def export(checkpoint, ready_graphs):
    """Return a function that exports the copied checkpoint and gives its receipt."""

    def run(target, **changes):
        return export_bundle(ExportOptions(checkpoint, target, **changes), 1, lambda stage: None)

    return run


def test_when_other_files_lie_in_the_checkpoint_expect_the_same_digest(export, checkpoint):
    plain = export(checkpoint.parent / 'bundle')
    for name in ('.cache/huggingface/download/config.json.metadata', 'README.md', 'old/a.bin'):
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_text('not read', encoding='utf-8')
    inside = export(checkpoint / 'bundle')
    assert set(inside.receipt['checkpoint']['files']) == READ | {'backbone/config.json'}
    assert inside.model_sha256 == plain.model_sha256


def test_when_the_backbone_lies_in_the_checkpoint_expect_the_same_digest(export, checkpoint):
    beside = export(checkpoint.parent / 'bundle')
    shutil.move(checkpoint.parent / 'backbone', checkpoint / 'backbone')
    assert export(checkpoint.parent / 'again').model_sha256 == beside.model_sha256


def test_when_robot_io_is_given_expect_its_digest_and_not_that_in_the_folder(export, checkpoint):
    text = (
        'period_s: 0.1\nstate: {joints: [a, b, c, d, e, f], units: [m, m, m, m, m, m]}\n'
        'action: {joints: [a, b, c, d, e, f], units: [m, m, m, m, m, m], control_mode: position, '
        'first_sample_offset_steps: 1}\ncameras: null\n'
    )
    given = checkpoint.parent / 'mine.yaml'
    given.write_text(text, encoding='utf-8')
    (checkpoint / 'robot_io.yaml').write_text('# another\n' + text, encoding='utf-8')
    files = export(checkpoint.parent / 'bundle', robot_io=given).receipt['checkpoint']['files']
    assert files['robot_io.yaml'] == sha256_of_file(given)
    own = export(checkpoint.parent / 'own').receipt['checkpoint']['files']
    assert own['robot_io.yaml'] == sha256_of_file(checkpoint / 'robot_io.yaml')
