# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The order of what a capture does, on a stand-in for torch.cuda: no card is needed."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import cuda_graph  # noqa: E402
from vla_deploy.backends.cuda_graph import Captured  # noqa: E402


class Stream:
    def wait_stream(self, _other):
        pass


@pytest.fixture
def calls(monkeypatch):
    """Return what is called of torch.cuda, in order."""
    made = []

    class Graph:
        def capture_begin(self, _pool, capture_error_mode):
            assert capture_error_mode == 'thread_local'
            made.append('begin')

        def capture_end(self):
            made.append('end')

    @contextmanager
    def on(_stream):
        yield

    for name, value in {
        'CUDAGraph': Graph,
        'current_blas_handle': lambda: made.append('handle'),
        'current_stream': Stream,
        'stream': on,
    }.items():
        monkeypatch.setattr(cuda_graph.torch.cuda, name, value)
    return made


@pytest.mark.parametrize('rehearsed', [True, False])
def test_when_a_function_is_captured_expect_the_threads_blas_handle_made_before(calls, rehearsed):
    rehearsal = (lambda: calls.append('rehearsal')) if rehearsed else None
    Captured(lambda: calls.append('function'), rehearsal, None, Stream())
    assert calls == ['rehearsal'] * rehearsed + ['handle', 'begin', 'function', 'end']
