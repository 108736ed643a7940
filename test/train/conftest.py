# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The training tools are scripts: their folder goes onto the path, as python does for a script."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'train'))


@pytest.fixture(scope='session', autouse=True)
def one_torch_thread():
    """Torch's threads wait for each other busily, which takes minutes on a machine at work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='session')
def urdf_text():
    return (ROOT / 'urdf' / 'fr3.urdf').read_text()


@pytest.fixture(scope='session')
def reach_checkpoint_folder():
    return ROOT / 'policies' / 'reach'


@pytest.fixture(scope='session')
def few_demonstrations(urdf_text):
    """24 images of 12 training scenes, lights and colours varied."""
    from reach_data import Recording, record

    return record(Recording(urdf_text, 0, 12, held_out=False, vary=True), workers=1)
