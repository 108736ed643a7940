# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What two threads do for a start of the torch backend, on a stand-in for streams: no card."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import parameters, torch_cuda, torch_start  # noqa: E402
from vla_deploy.backends.fused_layers import Language, Tower  # noqa: E402
from vla_deploy.backends.parameters import BundleParameters, FileParameters  # noqa: E402
from vla_deploy.backends.quantised import CODES, Quantised  # noqa: E402
from vla_deploy.backends.torch_ops import TorchOps  # noqa: E402
from vla_deploy.backends.torch_start import _tell, beside, make_policy  # noqa: E402
from vla_deploy.pipeline.backend import BackendOptions  # noqa: E402
from vla_deploy.pipeline.bundle import open_bundle  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread')
CPU, STREAM, CAMERAS = torch.device('cpu'), object(), 2
SETS = ('pi0', 'pi05', 'smolvla_2cam_empty')


@pytest.fixture
def threads(monkeypatch):
    """Return what was done by which thread, in order."""
    done = []

    def note(owner, name):
        right = getattr(owner, name)

        def noted(*given, **named):
            done.append((name, threading.current_thread() is threading.main_thread()))
            return right(*given, **named)

        monkeypatch.setattr(owner, name, noted)

    monkeypatch.setattr(torch.cuda, 'set_stream', lambda _: None)
    note(torch.cuda, 'set_stream')
    note(torch, 'mm')
    note(Tower, 'run')
    note(BundleParameters, 'begin')
    return done


@pytest.fixture
def source(golden_bundle):
    """Return name -> the parameters of a golden bundle."""
    opened = []

    def load(name):
        opened.append(BundleParameters(open_bundle(golden_bundle(name)), CPU))
        return opened[-1]

    yield load
    for own in opened:
        own.drop()
        own.finish()


def weights(policy):
    """Return some of each stack."""
    layers = [own for stack in (policy.tower, policy.language) for own in stack.layers[:-1]]
    found = [policy._embedding, policy._action_out[0], policy.tower.patch]
    for layer in (*layers, *policy.expert.layers):
        found += layer.qkv if isinstance(layer.qkv, tuple) else [layer.qkv]
    return found


@pytest.mark.parametrize('name', SETS)
@torch.inference_mode()
def test_when_another_thread_makes_the_stacks_expect_the_weights_of_one(name, source, threads):
    made = []
    for stream in (None, STREAM):
        own = source(name)
        made.append(make_policy(own, torch.float32, TorchOps(), 1, CAMERAS, stream))
        own.finish()
    one, two = map(weights, made)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    # both in the thread that captures: a product of any size, and the tower
    assert threads.index(('mm', True)) < threads.index(('run', True))
    assert ('mm', False) not in threads
    assert ('begin', False) in threads
    assert threads.index(('set_stream', False)) < threads.index(('begin', False))


@pytest.mark.parametrize('part', [Tower, Language])
@torch.inference_mode()
def test_when_stacks_cannot_be_made_expect_why_and_nothing_awaited(
    part, source, threads, monkeypatch
):
    def fail(*_):
        raise MemoryError('no memory for a stack')

    monkeypatch.setattr(part, '__init__', fail)
    with pytest.raises(MemoryError, match='no memory for a stack'):
        make_policy(source('pi0'), torch.float32, TorchOps(), 1, CAMERAS, STREAM)
    assert ('begin', False) not in threads


@torch.inference_mode()
def test_when_the_other_thread_cannot_begin_expect_an_error_and_nothing_awaited(
    source, monkeypatch
):
    def fail(_):
        raise RuntimeError('CUDA error: invalid device context')

    monkeypatch.setattr(torch.cuda, 'set_stream', fail)
    with pytest.raises(RuntimeError, match='invalid device context'):
        make_policy(source('pi0'), torch.float32, TorchOps(), 1, CAMERAS, STREAM)


def test_when_a_reader_cannot_begin_expect_why(golden_bundle, monkeypatch):
    def fail(_):
        raise RuntimeError('CUDA error: invalid device context')

    monkeypatch.setattr(FileParameters, '_give_stream', fail)
    own = BundleParameters(open_bundle(golden_bundle('pi0')), CPU)
    name = next(iter(own._entries))
    own.fill(torch.empty(own.shape(name)), name)
    with pytest.raises(RuntimeError, match='invalid device context'):
        own.finish()


def test_when_readers_read_several_times_expect_one_stream_for_each(source, monkeypatch):
    given = []
    monkeypatch.setattr(torch.cuda, 'Stream', lambda _: object())
    monkeypatch.setattr(
        torch.cuda, 'set_stream', lambda stream: given.append((threading.get_ident(), stream))
    )
    own = source('pi0')
    own._on_gpu = True
    readers = [ThreadPoolExecutor(1) for _ in range(2)]
    for reader in (*readers, *readers):
        reader.submit(own._give_stream).result()
    own._on_gpu = False
    for reader in readers:
        reader.shutdown()
    assert len(given) == len(dict(given)) == len({stream for _, stream in given}) == 2


def test_when_stacks_are_cancelled_expect_who_waits_for_the_tower_told():
    stacks, tower = Future(), Future()
    stacks.cancel()
    _tell(tower, stacks)
    assert tower.cancelled()


@pytest.mark.usefixtures('threads')
@torch.inference_mode()
def test_when_products_fail_expect_the_other_thread_done(
    source, monkeypatch
):
    def fail(*_):
        raise MemoryError('no memory for products')

    monkeypatch.setattr(Tower, 'run', fail)
    with pytest.raises(MemoryError, match='no memory for products'):
        make_policy(source('pi0'), torch.float32, TorchOps(), 1, CAMERAS, STREAM)
    assert not [t for t in threading.enumerate() if t.name.startswith('beside')]


def test_when_loading_fails_before_all_is_asked_for_expect_nothing_read(golden_bundle, monkeypatch):
    bundle, begun = open_bundle(golden_bundle('pi0')), []

    def policy(config, source, *_):
        name, entry = next(iter(source._entries.items()))
        source.fill(torch.empty(entry.shape), name)
        raise MemoryError

    monkeypatch.setattr(torch_start, 'FusedPolicy', policy)
    monkeypatch.setattr(FileParameters, '_fetch', lambda *given: begun.append(given))
    with pytest.raises(MemoryError):
        torch_cuda.load(bundle, BackendOptions(provider='cpu'))
    assert begun == []


def test_when_parameters_are_asked_for_expect_reading_to_begin_when_all_were(
    golden_bundle, monkeypatch
):
    begun = []
    right = FileParameters._fetch
    monkeypatch.setattr(
        FileParameters, '_fetch', lambda *given: (begun.append(given), right(*given))[1]
    )
    source = BundleParameters(open_bundle(golden_bundle('pi0')), CPU)
    targets = {name: torch.empty(source.shape(name)) for name in source._entries}
    for name, target in targets.items():
        source.fill(target, name)
    assert begun == []
    source.close()
    source.finish()
    assert 0 < len(begun) < len(targets)  # small ones go together


@pytest.mark.parametrize('ask', [FileParameters.begin, FileParameters.close])
def test_when_reading_is_dropped_expect_no_more_read_than_had_begun(ask, source, monkeypatch):
    read, dropped = [], threading.Event()

    def fetch(_, pieces, __):
        read.append(pieces)
        assert dropped.wait(60.0)

    monkeypatch.setattr(FileParameters, '_fetch', fetch)
    monkeypatch.setattr(parameters, 'PIECE_BYTES', 4096)
    own = source('pi0')
    for name in own._entries:
        own.fill(torch.empty(own.shape(name)), name)
    assert len(own._asked) > 10 * parameters.READERS
    ask(own)
    own.drop()
    dropped.set()
    own.finish()
    assert len(read) <= parameters.READERS


@pytest.mark.parametrize('dtype', [torch.float32, CODES])
def test_when_a_parameter_is_asked_for_after_the_last_expect_its_name(dtype, source):
    own = source('pi0')
    name = next(name for name in own._entries if len(own.shape(name)) == 2)
    target = torch.empty(own.shape(name))
    own.close()
    with pytest.raises(RuntimeError, match=f'weights.bin: {name} was asked for after close'):
        own.fill(target if dtype != CODES else Quantised.empty(*target.shape, CPU), name)


def test_when_a_function_runs_beside_expect_its_result_in_inference_mode():
    with beside(None) as other:
        found = other.run(lambda given: (given, torch.is_inference_mode_enabled()), 3)
        failed = other.run(lambda: 1 / 0)
        assert found.result() == (3, True)
        with pytest.raises(ZeroDivisionError):
            failed.result()
