# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A policy on the torch backend is gone at once when it is closed or does not load."""

from __future__ import annotations

import gc
import weakref

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import torch_requirements  # noqa: E402
from vla_deploy.backends.torch_cuda import TorchCudaBackend  # noqa: E402
from vla_deploy.pipeline import Policy, PolicyError  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def counting_only():
    """Let nothing go but what nothing refers to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures('counting_only')
@pytest.mark.parametrize('variant', torch_requirements.VARIANTS)
def test_when_a_policy_is_closed_expect_backend_and_weights_gone_at_once(variant, serve):
    policy = serve('pi0', variant=variant)
    policy.self_test()
    backend = policy._backend
    held = [weakref.ref(own) for own in (backend, backend._policy, backend._policy.keys)]
    del backend
    policy.close()
    assert [own() for own in held] == [None] * 3
    policy.close()
    with pytest.raises(PolicyError, match='was closed: load it again'):
        policy.self_test()


@pytest.mark.usefixtures('counting_only')
def test_when_loading_fails_at_its_end_expect_the_weights_gone_at_once(serve, monkeypatch):
    held = []

    def fail(self):
        held.extend([weakref.ref(self), weakref.ref(self._policy)])
        raise RuntimeError('CUDA error: an illegal memory access')

    monkeypatch.setattr(TorchCudaBackend, 'renew_constants', fail)
    with pytest.raises(PolicyError):
        serve('pi0', variant='unrolled')
    assert [own() for own in held] == [None] * 2


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_when_loading_ends_before_all_is_there_expect_the_backend_closed(
    error, serve, monkeypatch
):
    held, right = [], TorchCudaBackend.close

    def fail(self):
        raise error

    monkeypatch.setattr(TorchCudaBackend, 'renew_constants', fail)
    monkeypatch.setattr(TorchCudaBackend, 'close', lambda own: (held.append(own), right(own)))
    with pytest.raises((PolicyError, KeyboardInterrupt)):
        serve('pi0')
    assert [vars(own) for own in held] == [{}]


@pytest.mark.usefixtures('counting_only')
def test_when_the_pipeline_does_not_fit_the_bundle_expect_the_backend_closed(serve, monkeypatch):
    held = []

    def fail(_self, _bundle, backend, *_):
        held.append(weakref.ref(backend._policy))
        raise PolicyError('no image code')

    monkeypatch.setattr(Policy, '__init__', fail)
    with pytest.raises(PolicyError, match='no image code'):
        serve('pi0', variant='unrolled')
    assert [own() for own in held] == [None]
