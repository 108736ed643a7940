# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The order of what a capture does, on a stand-in for torch.cuda: no card is needed."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import cuda_graph  # noqa: E402
from vla_deploy.backends.cuda_graph import Captured, Captures, SideStream  # noqa: E402
from vla_deploy.backends.fused_inputs import bucket_of  # noqa: E402
from vla_deploy.backends.torch_ops import Inline  # noqa: E402


class Stream:
    """Waits, or cannot any more."""

    def __init__(self, error=None):
        self.error, self.waits = error, 0

    def wait_stream(self, _other):
        self.waits += 1
        if self.error is not None:
            raise self.error


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
            if 'invalid' in made:
                raise RuntimeError('CUDA error: operation failed due to a previous error')

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


@pytest.mark.parametrize('multiplies', [True, False])
@pytest.mark.parametrize('rehearsed', [True, False])
def test_when_a_function_that_multiplies_is_captured_expect_the_threads_blas_handle_made_before(
    calls, rehearsed, multiplies
):
    rehearsal = (lambda: calls.append('rehearsal')) if rehearsed else None
    Captured(lambda: calls.append('function'), rehearsal, None, Stream(), multiplies)
    before = ['rehearsal'] * rehearsed + ['handle'] * multiplies
    assert calls == [*before, 'begin', 'function', 'end']


def test_when_a_capture_fails_expect_what_made_it_fail_and_the_capture_ended(calls):
    def function():
        calls.append('invalid')
        raise MemoryError('the first error')

    with pytest.raises(MemoryError, match='the first error'):
        Captured(function, None, None, Stream())
    assert calls[-1] == 'end'


def test_when_only_the_end_of_a_capture_fails_expect_that_error(calls):
    with pytest.raises(RuntimeError, match='previous error'):
        Captured(lambda: calls.append('invalid'), None, None, Stream())


@pytest.mark.usefixtures('calls')
def test_when_what_runs_beside_a_stream_fails_expect_both_joined_and_the_first_error(monkeypatch):
    main = Stream()
    monkeypatch.setattr(cuda_graph.torch.cuda, 'current_stream', lambda: main)
    for main.error in (None, RuntimeError('the stream cannot wait')):
        with pytest.raises(MemoryError), SideStream(Stream(), lambda: None):
            raise MemoryError
    assert main.waits == 2
    with pytest.raises(RuntimeError, match='cannot wait'), SideStream(Stream(), lambda: None):
        pass


@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize('failing', ['attend', 'gelu_linear'])  # of the expert, and of the tower
@torch.inference_mode()
def test_when_a_kernel_fails_expect_the_second_stream_joined(failing, serve, monkeypatch):
    backend = serve('pi0')._backend
    policy, sides = backend._policy, []
    inputs = backend._inputs_of(bucket_of(policy.config, policy.config.camera_slots, 1))

    class Side(Inline):
        joined = False

        def __init__(self):
            sides.append(self)

        def __exit__(self, *_):
            self.joined = True

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(policy.ops, 'side', Side)
    monkeypatch.setattr(policy.ops, failing, fail)
    x = torch.zeros(policy.config.chunk_size, policy.config.max_action_dim)
    constants = policy.constants(backend._steps[0])
    with pytest.raises(MemoryError):
        policy.prefix_and_first_step(inputs, x, x[0], constants)
    assert [side.joined for side in sides] == [True, True]


def test_when_a_capture_fails_expect_the_next_in_another_pool(monkeypatch):
    pools = []

    def capture(_function, _rehearsal, pool, *_):
        pools.append(pool)
        raise RuntimeError('CUDA error: out of memory')

    monkeypatch.setattr(cuda_graph, 'Captured', capture)
    monkeypatch.setattr(cuda_graph.torch.cuda, 'graph_pool_handle', object)
    captures = Captures(Stream())
    for _ in range(2):
        with pytest.raises(RuntimeError, match='out of memory'):
            captures.of(lambda: None)
    assert pools[0] is not pools[1]
