# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What several threads do for a start of the torch backend, on a stand-in for streams: no card."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import (  # noqa: E402
    parameters,
    torch_cuda,
    torch_start,
    weights_file,
)
from vla_deploy.backends.fused_layers import Language, Tower  # noqa: E402
from vla_deploy.backends.parameters import (  # noqa: E402
    BundleParameters,
    Factor,
    FileParameters,
)
from vla_deploy.backends.quantised import CODES, Quantised  # noqa: E402
from vla_deploy.backends.torch_ops import TorchOps  # noqa: E402
from vla_deploy.backends.torch_start import beside, make_policy  # noqa: E402
from vla_deploy.backends.weights_file import WeightsFile  # noqa: E402
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
    note(torch_start, 'attend')
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
    found = [policy._embedding, policy._action_out, policy._action_in, *policy._turn]
    found += [policy.tower.patch, policy.tower.start]
    for layer in (*layers, *policy.expert.layers):
        found += layer.qkv if isinstance(layer.qkv, tuple) else [layer.qkv]
    return found


@pytest.mark.parametrize('name', SETS)
@torch.inference_mode()
def test_when_another_thread_makes_the_policy_expect_the_weights_of_one(name, source, threads):
    made = []
    for stream in (None, STREAM):
        own = source(name)
        threads.clear()  # what the export of the bundle did
        made.append(make_policy(own, torch.float32, TorchOps(), 1, CAMERAS, stream))
        own.finish()
    one, two = map(weights, made)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    # the thread that captures plans the tower's attention, and waits for no product
    assert ('attend', True) in threads
    assert ('mm', False) in threads
    assert ('mm', True) not in threads
    assert ('begin', False) in threads
    assert threads.index(('set_stream', False)) < threads.index(('begin', False))


@pytest.mark.parametrize('part', [Tower, Language])
@torch.inference_mode()
def test_when_a_policy_cannot_be_made_expect_why_and_nothing_read(
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
    def fail(*_):
        raise RuntimeError('CUDA error: invalid device context')

    monkeypatch.setattr(WeightsFile, 'begin', fail)
    own = BundleParameters(open_bundle(golden_bundle('pi0')), CPU)
    name = next(iter(own._entries))
    own.fill(torch.empty(own.shape(name)), name)
    with pytest.raises(RuntimeError, match='invalid device context'):
        own.finish()


def test_when_readers_read_several_times_expect_one_stream_for_each(monkeypatch):
    given = []
    monkeypatch.setattr(torch.cuda, 'Stream', lambda _: object())
    monkeypatch.setattr(
        torch.cuda, 'set_stream', lambda stream: given.append((threading.get_ident(), stream))
    )
    monkeypatch.setattr(weights_file, '_Buffer', lambda stream: SimpleNamespace(host=CPU))
    monkeypatch.setattr(torch, 'empty_like', lambda host, device: host)
    reader = weights_file._Reader()
    threads = [ThreadPoolExecutor(1) for _ in range(2)]
    for thread in (*threads, *threads):
        thread.submit(reader.begin, torch.device('cuda')).result()
    for thread in threads:
        thread.shutdown()
    assert len(given) == len(dict(given)) == len({stream for _, stream in given}) == 2


@pytest.mark.usefixtures('threads')
@pytest.mark.parametrize('part', ['attend', '_multiply'])
@torch.inference_mode()
def test_when_a_library_fails_expect_why_and_the_other_threads_done(part, source, monkeypatch):
    def fail(*_):
        raise MemoryError('no memory for a library')

    monkeypatch.setattr(torch_start, part, fail)
    with pytest.raises(MemoryError, match='no memory for a library'):
        make_policy(source('pi0'), torch.float32, TorchOps(), 1, CAMERAS, STREAM)
    assert not [t for t in threading.enumerate() if t.name.startswith('beside')]


def test_when_loading_fails_before_all_is_asked_for_expect_nothing_read(golden_bundle, monkeypatch):
    bundle, begun = open_bundle(golden_bundle('pi0')), []

    def policy(config, source, *_):
        name, entry = next(iter(source._entries.items()))
        source.fill(torch.empty(entry.shape), name)
        raise MemoryError

    monkeypatch.setattr(torch_start, 'FusedPolicy', policy)
    monkeypatch.setattr(WeightsFile, 'copy', lambda *given: begun.append(given))
    with pytest.raises(MemoryError):
        torch_cuda.load(bundle, BackendOptions(provider='cpu'))
    assert begun == []


def test_when_parameters_are_asked_for_expect_reading_to_begin_when_all_were(source, monkeypatch):
    spans = []
    right = WeightsFile.copy
    monkeypatch.setattr(
        WeightsFile, 'copy', lambda file, span: (spans.append(span), right(file, span))[1]
    )
    own = source('pi0')
    targets = {name: torch.empty(own.shape(name)) for name in own._entries}
    for name, target in targets.items():
        own.fill(target, name)
    assert spans == []
    own.close()
    own.finish()
    assert 0 < len(spans) < len(targets)  # small ones go together


@pytest.mark.parametrize('ask', [FileParameters.begin, FileParameters.close])
def test_when_reading_is_dropped_expect_no_more_read_than_had_begun(ask, source, monkeypatch):
    read, dropped = [], threading.Event()

    def copy(_, span):
        read.append(span)
        assert dropped.wait(60.0)

    monkeypatch.setattr(WeightsFile, 'copy', copy)
    monkeypatch.setattr(weights_file, 'SPAN_BYTES', 4096)
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


def test_when_something_is_made_of_parameters_expect_it_in_its_place_when_all_are_there(source):
    own = source('pi0')
    name = next(name for name in own._entries if len(own.shape(name)) == 2)
    place = own.made(own.shape(name), torch.float64, lambda: 2 * own.read(name))
    alone = own.later(lambda: own.read(name).sum())
    expected = own.read(name)
    own.finish()
    assert torch.equal(place, 2 * expected.double())
    assert torch.equal(alone.result(), expected.sum())


def test_when_what_is_made_cannot_be_expect_why_at_the_end(golden_bundle):
    own = BundleParameters(open_bundle(golden_bundle('pi0')), CPU)

    def fail():
        raise MemoryError('no memory on the host')

    own.made((1,), torch.float32, fail)
    with pytest.raises(MemoryError, match='no memory on the host'):
        own.finish()


def test_when_spans_are_read_expect_factors_held_until_the_device_has_read_them(
    source, monkeypatch
):
    alive, factors = [], []
    place, end = FileParameters._place, WeightsFile.end

    def placed(own, target, name, factor):
        factors.append(weakref.ref(factor))
        return place(own, target, name, factor)

    def ended(file):
        alive.append([own() is not None for own in factors])
        end(file)

    monkeypatch.setattr(weights_file, 'SPAN_BYTES', 4096)
    monkeypatch.setattr(FileParameters, '_place', placed)
    monkeypatch.setattr(WeightsFile, 'end', ended)
    own = source('pi0')
    for number, name in enumerate(n for n in own._entries if len(own.shape(n)) == 2):
        own.fill(torch.empty(own.shape(name)), name, Factor(float(number)))
    own.finish()
    assert len(alive) == 1 + parameters.READERS  # of factors, and of what they multiply
    assert all(alive[-2])
    assert all(alive[-1])
