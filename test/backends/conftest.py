# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Policies on the torch backend, for its tests."""

import os

import numpy as np
import pytest

from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.backend import ModelInputs


@pytest.fixture(scope='session', autouse=True)
def own_triton_cache(tmp_path_factory):
    """Leave what Triton keeps in the home folder as it is."""
    os.environ['TRITON_CACHE_DIR'] = str(tmp_path_factory.mktemp('triton'))


@pytest.fixture(scope='module')
def one_thread():
    """Leave the other cores to others."""
    torch = pytest.importorskip('torch')
    torch.set_num_threads(1)


@pytest.fixture
def inputs_of():
    """Return contract -> an observation as a backend takes it: every camera, the longest text."""

    def make(contract):
        image = (contract.camera_slots, 3, contract.image.height, contract.image.width)
        return ModelInputs(
            np.zeros(image, np.float32),
            np.ones(contract.camera_slots, bool),
            np.ones(contract.tokenizer.max_length, np.int64),
            np.ones(contract.tokenizer.max_length, bool),
            np.zeros(contract.state.padded_dim, np.float32),
        )

    return make


@pytest.fixture
def serve(golden_bundle):
    """Return name, options -> the policy of a golden bundle on the torch backend's CPU form."""

    def load(name, **options):
        given = {'backend': 'torch_cuda', 'provider': 'cpu', 'threads': 1, **options}
        return Policy.load(golden_bundle(name), **given)

    return load
