# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Export compares with LeRobot itself where it is installed and runs, and says which it did."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from safetensors import SafetensorError

from vla_deploy.export import lerobot
from vla_deploy.export.checkpoint import read_checkpoint
from vla_deploy.export.families import family_of
from vla_deploy.export.fixtures import make_cases
from vla_deploy.export.lerobot import is_installed, try_lerobot
from vla_deploy.export.source import CheckpointError
from vla_deploy.pipeline.bundle import REPORT, open_bundle


class ParsingError(Exception):
    """As draccus has it: of no narrower type."""


class Policy(torch.nn.Module):
    """Of LeRobot's shape, but without a weight: none of a checkpoint's fits."""

    def __init__(self, config):
        super().__init__()
        self.config = config


@pytest.fixture
def attempt(checkpoint, monkeypatch):
    """Return a function that tries a LeRobot which raises `errors` where they are named."""
    progress = []

    def run(**errors):
        def fail(stage):
            if stage in errors:
                raise errors[stage]

        def config_of(path):
            fail('config')
            return types.SimpleNamespace(vlm_model_name='backbone')

        def processors(*arguments, **named):
            fail('processors')
            return None, None

        names = ('lerobot', 'lerobot.policies', 'lerobot.policies.factory', 'lerobot.configs',
                 'lerobot.configs.policies')
        modules = {name: types.ModuleType(name) for name in names}
        modules['lerobot.configs.policies'].PreTrainedConfig = types.SimpleNamespace(
            from_pretrained=config_of
        )
        factory = modules['lerobot.policies.factory']
        factory.get_policy_class = lambda family: Policy
        factory.make_pre_post_processors = processors
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        read = read_checkpoint(checkpoint)
        contract = family_of(read).contract(read)
        cases = make_cases(contract, read.processors.statistics)
        return try_lerobot(read, contract, cases, progress.append)

    return run


def test_when_exported_expect_the_receipt_to_say_what_it_was_compared_with(golden_bundle):
    folder = golden_bundle('smolvla_3cam')
    reference = open_bundle(folder).receipt['reference']
    assert reference['reference']['lerobot'] == '0.6.1'
    report = (folder / REPORT).read_text(encoding='utf-8')
    if is_installed():
        assert reference['kind'] == 'direct comparison'
        assert reference['torch_chunk_max_abs'] <= 2e-6
        assert 'run on this checkpoint with its own processors' in report
    else:
        assert reference['kind'] == 'recorded cases'
        assert 'LeRobot cannot be imported' in reference['why_not_direct']
        assert reference['why_not_direct'] in report


@pytest.mark.parametrize(
    'error', [ParsingError('field x:\n no such'), SafetensorError('cut off'), AssertionError()]
)
@pytest.mark.parametrize('stage', ['config', 'processors'])
def test_when_lerobot_does_not_load_a_checkpoint_expect_the_reason_in_one_line(
    attempt, monkeypatch, error, stage
):
    monkeypatch.setattr(lerobot, '_load', lambda policy, path: None)
    runs, reason = attempt(**{stage: error})
    assert runs is None
    assert reason.startswith(f'LeRobot does not load it: {type(error).__name__}')
    assert '\n' not in reason


def test_when_lerobot_cannot_be_imported_for_whatever_reason_expect_it_said(attempt, monkeypatch):
    def fail(name):
        raise ParsingError('made for another Python')

    monkeypatch.setattr(lerobot.importlib, 'import_module', fail)
    runs, reason = attempt()
    assert runs is None
    assert reason == 'LeRobot cannot be imported: ParsingError: made for another Python'


def test_when_lerobot_fails_while_it_runs_a_case_expect_the_reason_and_no_runs(
    attempt, monkeypatch
):
    def fail(reference, case):
        raise IndexError('tuple index\nout of range')

    monkeypatch.setattr(lerobot, '_load', lambda policy, path: None)
    monkeypatch.setattr(lerobot, 'versions', lambda: {'lerobot': '0.6.1'})
    monkeypatch.setattr(lerobot.LeRobotReference, '_run', fail)
    runs, reason = attempt()
    assert runs is None
    assert reason == 'LeRobot does not run it: IndexError: tuple index out of range'


def test_when_the_weights_are_damaged_expect_them_named_and_no_stand_in(attempt, checkpoint):
    path = checkpoint / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r'model\.safetensors: cannot be read, copy it again'):
        attempt()
