# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The torch backend's turns on its device, which other robots' processes may compute on as well."""

from __future__ import annotations

import contextlib
import types

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from vla_deploy.backends import torch_cuda  # noqa: E402
from vla_deploy.backends.torch_device import turn_on  # noqa: E402
from vla_deploy.pipeline.backend import BackendOptions  # noqa: E402
from vla_deploy.pipeline.bundle import open_bundle  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread')
# of places and of arrays, which the device does not see
NO_KERNELS = (
    'aten::view', 'aten::slice.Tensor', 'aten::select.int', 'aten::detach', 'aten::lift_fresh',
    'aten::resolve_conj', 'aten::resolve_neg',
)  # fmt: skip
COPY = 'aten::to.dtype_layout'  # from the host


class Launches(TorchDispatchMode):
    """Notes what is launched within a turn and what is launched outside."""

    def __init__(self):
        super().__init__()
        self.within, self.outside, self._turns = [], [], 0

    @contextlib.contextmanager
    def turn(self):
        self._turns += 1
        yield
        self._turns -= 1

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        if operator.name() not in NO_KERNELS:
            (self.within if self._turns else self.outside).append(operator.name())
        return operator(*arguments, **(keywords or {}))


@pytest.fixture
def launched(golden_bundle, inputs_of, monkeypatch):
    """Return variant, function of a backend and what it takes -> what it launches."""

    def launches(variant, compute):
        bundle, noted = open_bundle(golden_bundle('pi0')), Launches()
        monkeypatch.setattr(torch_cuda, 'turn_on', lambda device: noted.turn)
        batch = 2 if variant == 'unrolled' else 1
        options = BackendOptions(provider='cpu', variant=variant, batch=batch)
        backend, contract = torch_cuda.load(bundle, options), bundle.contract
        noise = np.zeros((contract.chunk_steps, contract.action.padded_dim), np.float32)
        taken = (backend, inputs_of(contract), noise)
        compute(*taken)  # constants are made at the first time
        noted.within.clear()
        with noted:
            compute(*taken)
        return noted

    return launches


def whole(backend, inputs, noise):
    backend.whole(inputs, noise)


def several(backend, inputs, noise):
    backend.several([inputs, inputs], [noise, noise])


def prefix(backend, inputs, noise):
    backend.prefix(inputs)


def steps(backend, inputs, noise):
    number = backend.prefix(inputs)
    for time in backend._steps:
        backend.step(number, noise, time, np.float32(-0.1))


@pytest.mark.parametrize(('variant', 'compute', 'observations'), [
    ('unrolled', whole, 1), ('unrolled', several, 2), ('unrolled', steps, 1), ('split', prefix, 1),
    ('split', steps, 1),
])  # fmt: skip
def test_when_a_chunk_is_computed_expect_all_but_the_copies_of_images_within_turns(
    variant, compute, observations, launched
):
    noted = launched(variant, compute)
    assert noted.outside == [COPY] * observations
    assert len(noted.within) > 100


def test_when_two_policies_are_on_one_card_expect_them_to_take_turns(monkeypatch):
    def properties(device):
        return types.SimpleNamespace(uuid=f'card {device.index}')

    monkeypatch.setattr(torch.cuda, 'get_device_properties', properties)
    one, same, other = (turn_on(torch.device('cuda', index)) for index in (0, 0, 1))
    with one() as first, other() as beside, same() as waiting:
        assert (first, beside, waiting) == (True, True, False)
