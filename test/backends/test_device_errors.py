# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What torch, Triton and a compiler can raise becomes one line that says what to do."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import torch_cuda  # noqa: E402
from vla_deploy.pipeline import PolicyError  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread')


class TritonError(Exception):
    """Stands for Triton's own, which is not on a machine without a card."""

    __module__ = 'triton.errors'


ERRORS = {
    'ALLOC_FAILED.*; stop what else uses the device, or .* with fewer bits$': RuntimeError(
        'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\nmore'
    ),
    'stream is capturing; something was launched .*: report it': RuntimeError(
        'CUDA error: operation not permitted when stream is capturing\nmore'
    ),
    'illegal memory access; the device may be lost': RuntimeError(
        'Triton Error [CUDA]: an illegal memory access'
    ),
    'Failed to find C compiler.*; install a C compiler': RuntimeError(
        'Failed to find C compiler. Please specify via CC environment variable.'
    ),
    'no.such.cache.*; check .* TRITON_CACHE_DIR': PermissionError(
        13, 'Permission denied', '/no/such/cache'
    ),
    'gcc.*; what Triton compiles with fails': subprocess.CalledProcessError(1, ['gcc', 'main.c']),
    'out of resource.*; the kernels are too large': TritonError('out of resource: shared memory'),
    'at 1:0; install the triton that fits': TritonError('at 1:0\ndef kernel'),
}


@pytest.fixture
def triton(monkeypatch):
    module = ModuleType('triton.errors')
    module.TritonError = TritonError
    monkeypatch.setitem(sys.modules, 'triton.errors', module)


@pytest.mark.parametrize('line', ERRORS)
@pytest.mark.usefixtures('triton')
def test_when_loading_fails_expect_one_line_with_what_to_do(line, serve, monkeypatch):
    def fail(*_):
        raise ERRORS[line]

    monkeypatch.setattr(torch_cuda, 'make_policy', fail)
    with pytest.raises(PolicyError, match=f'pi0.*: cannot be loaded: .*{line}') as caught:
        serve('pi0')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('line', ERRORS)
@pytest.mark.usefixtures('triton')
def test_when_serving_fails_expect_one_line_with_what_to_do(line, serve, monkeypatch):
    policy = serve('pi0', variant='unrolled')

    def fail(*_):
        raise ERRORS[line]

    monkeypatch.setattr(policy._backend, '_together', fail)
    with pytest.raises(PolicyError, match=f'{torch_cuda.FAILED}: .*{line}') as caught:
        policy.self_test()
    assert '\n' not in str(caught.value)


def test_when_the_program_itself_is_wrong_expect_its_error_as_it_is(serve, monkeypatch):
    def fail(*_):
        raise TypeError('no such argument')

    monkeypatch.setattr(torch_cuda, 'make_policy', fail)
    with pytest.raises(TypeError):
        serve('pi0')
