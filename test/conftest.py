# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles that tests of several areas share: each is made once a session, when first asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from safetensors.numpy import save_file

from vla_deploy.core.contract import Contract
from vla_deploy.files import write_bytes, write_yaml
from vla_deploy.pipeline import bundle as bundles
from vla_deploy.pipeline.fixtures import Fixture, write_fixtures
from vla_deploy.pipeline.observation import Observation

GOLDENS = Path(__file__).parent / 'goldens'
DIM, PADDED_DIM, STEPS = 7, 8, 6

# How fast an example runs says nothing on a machine that does other work.
settings.register_profile('vla_deploy', deadline=None)
settings.load_profile('vla_deploy')

# Tests of running processes, which a loaded machine or a stalled transport can make late. Some more
# tries before it counts; why is printed at the end.
PROCESS_TESTS = ('graph', 'robots')
_LINES_OF_A_RERUN = 80  # what the processes said, where the test has that


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name in PROCESS_TESTS:
            item.add_marker(pytest.mark.flaky(reruns=3))


def pytest_terminal_summary(terminalreporter):
    """Say why tests were tried again: those that passed in the end say nothing of it."""
    tried = terminalreporter.getreports('rerun')
    if tried:
        terminalreporter.section('tried again')
    for report in tried:
        crash = getattr(report.longrepr, 'reprcrash', None)
        why = crash.message.splitlines() if crash else ['no reason recorded']
        terminalreporter.line(f'{report.nodeid}: {why[0]}')
        for line in why[1:_LINES_OF_A_RERUN]:
            terminalreporter.line(f'    {line}')


@dataclasses.dataclass(frozen=True)
class GoldenCase:
    """One recorded case of a reference: its name, its text and its arrays by short name."""

    golden: str
    index: int
    task: str
    truncated: bool
    rtc: list[dict]
    arrays: dict[str, np.ndarray]

    @property
    def observation(self) -> Observation:
        """The raw inputs, images by the checkpoint's keys."""
        images = {
            name.removeprefix('image/'): array
            for name, array in self.arrays.items()
            if name.startswith('image/')
        }
        return Observation(images, self.arrays['state'], self.task)


@pytest.fixture(scope='session')
def golden_cases():
    """Return name -> list of GoldenCase."""

    def read(name: str) -> list[GoldenCase]:
        described = json.loads((GOLDENS / name / 'cases.json').read_text(encoding='utf-8'))
        with np.load(GOLDENS / name / 'cases.npz') as archive:
            arrays = {key: archive[key] for key in archive.files}
        cases = []
        for case in described['cases']:
            prefix = f'case{case["index"]}/'
            own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            rtc = case.get('rtc', [])
            cases.append(
                GoldenCase(name, case['index'], case['task'], case['truncated'], rtc, own)
            )
        return cases

    return read


@pytest.fixture(scope='session')
def golden_bundle(tmp_path_factory):
    """Return name -> folder of the bundle exported from that golden checkpoint. Needs torch."""
    folders: dict[str, Path] = {}

    def export(name: str) -> Path:
        if name not in folders:
            from vla_deploy.export.build import ExportOptions, export_bundle

            target = tmp_path_factory.mktemp('golden') / name
            dims = GOLDENS / name / 'backbone' / 'tiny_model_config.json'
            options = ExportOptions(
                GOLDENS / name / 'checkpoint', target, dims=dims if dims.is_file() else None
            )
            export_bundle(options, 1, lambda line: None)
            folders[name] = target
        return folders[name]

    return export


@pytest.fixture(scope='session')
def plain_contract() -> Contract:
    """A contract of two cameras and seven joints."""
    vector = {
        'joints': [f'fr3_joint{i}' for i in range(1, DIM + 1)],
        'units': ['rad'] * DIM,
        'dim': DIM,
        'padded_dim': PADDED_DIM,
        'normalization': {'mode': 'mean_std', 'epsilon': 1e-8},
    }
    return Contract.from_mapping(
        {
            'schema_version': 2,
            'family': 'smolvla',
            'cameras': [
                {'name': name, 'key': f'observation.images.{name}', 'height': 48, 'width': 64}
                for name in ('front', 'wrist')
            ],
            'empty_camera_slots': 1,
            'image': {
                'height': 32,
                'width': 32,
                'placement': 'pad_left_top',
                'value_low': -1.0,
                'value_high': 1.0,
            },
            'state': vector,
            'action': {
                **vector,
                'control_mode': 'position',
                'semantics': 'absolute',
                'first_sample_offset_steps': 0,
            },
            'chunk_steps': STEPS,
            'denoise_steps': 4,
            'period_s': 0.1,
            'tokenizer': {
                'max_length': 12,
                'padding': 'max_length',
                'pad_token_id': 2,
                'newline': 'append_if_missing',
                'prompt': 'instruction',
            },
            'time_embedding': {'dim': 16, 'min_period': 0.004, 'max_period': 4.0},
            'reserved_inputs': [],
        }
    )


@pytest.fixture
def plain_bundle(tmp_path, plain_contract):
    """Return a function that writes a sealed bundle without graphs, for the backend 'stub'."""

    def write(contract: Contract = plain_contract, name: str = 'bundle') -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_yaml(folder / bundles.CONTRACT, contract.to_mapping())
        for file in (bundles.PREFIX_GRAPH, bundles.STEP_GRAPH, bundles.WEIGHTS, bundles.REPORT):
            write_bytes(folder / file, b'no graph\n')
        tokenizer = GOLDENS / 'smolvla_3cam' / 'backbone' / bundles.TOKENIZER
        write_bytes(folder / bundles.TOKENIZER, tokenizer.read_bytes())
        statistics = {}
        for part, spec in (('state', contract.state), ('action', contract.action)):
            statistics[f'{part}.mean'] = np.linspace(-1, 1, spec.dim, dtype=np.float32)
            statistics[f'{part}.std'] = np.full(spec.dim, 0.5, np.float32)
        save_file(statistics, folder / bundles.NORMALIZER)
        write_fixtures(folder / bundles.FIXTURES, [_fixture(contract)])
        seal(folder)
        return folder

    return write


@pytest.fixture(scope='session')
def seal_bundle():
    """Return a function that seals a bundle folder anew, after a test has changed a file."""
    return seal


def seal(folder: Path) -> None:
    """Write the receipt of a bundle folder for the files that are in it."""
    files = {
        path.name: bundles.sha256_of_file(path)
        for path in folder.iterdir()
        if path.name != bundles.RECEIPT
    }
    receipt = {'files': files, 'thresholds': {'target_max_abs': 1e-4}}
    write_bytes(folder / bundles.RECEIPT, bundles.seal_receipt(receipt))


def _fixture(contract: Contract) -> Fixture:
    images = {c.name: np.full((c.height, c.width, 3), 127, np.uint8) for c in contract.cameras}
    observation = Observation(images, np.zeros(contract.state.dim), 'reach')
    noise = np.zeros((contract.chunk_steps, contract.action.padded_dim), np.float32)
    return Fixture(observation, noise, noise)
