# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Copies of a golden checkpoint to damage, and exports that skip the slow part."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from vla_deploy.export import build
from vla_deploy.export.variants import VariantParity
from vla_deploy.pipeline.bundle import PREFIX_GRAPH, STEP_GRAPH, WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / 'test' / 'goldens'
sys.path.append(str(ROOT))  # last: of what stands there only tools/ is not installed


@pytest.fixture(autouse=True, scope='session')
def one_thread():
    """Leave the other cores to others."""
    torch.set_num_threads(1)


@pytest.fixture
def checkpoint(tmp_path):
    """Return a copy of the golden checkpoint, with its backbone beside it."""
    for part in ('checkpoint', 'backbone'):
        shutil.copytree(GOLDENS / 'smolvla_3cam' / part, tmp_path / 'model' / part)
    return tmp_path / 'model' / 'checkpoint'


@pytest.fixture
def edit_json(checkpoint):
    """Return a function that changes a JSON file of the checkpoint in place."""

    def edit(name, change):
        values = json.loads((checkpoint / name).read_text(encoding='utf-8'))
        change(values)
        (checkpoint / name).write_text(json.dumps(values), encoding='utf-8')

    return edit


@pytest.fixture
def ready_graphs(golden_bundle, monkeypatch):
    """Make export take the golden bundle's graphs instead of tracing them again, and not
    run the variants; return a list of functions that are applied to the weights file's bytes
    first."""
    changes = []
    bundle = golden_bundle('smolvla_3cam')

    def copy_graphs(model, prefix_path, step_path, weights_path):
        shutil.copyfile(bundle / PREFIX_GRAPH, prefix_path)
        shutil.copyfile(bundle / STEP_GRAPH, step_path)
        data = bytearray((bundle / WEIGHTS).read_bytes())
        for change in changes:
            change(data)
        weights_path.write_bytes(data)

    def identical(folder, precision, *rest):
        return {'loop': VariantParity(bit_identical=True, max_abs=0.0)}

    monkeypatch.setattr(build, 'export_graphs', copy_graphs)
    monkeypatch.setattr(build, 'run_variants', identical)
    return changes
