# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of a chunk on the torch backend's CPU form: their order, their number, their times."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from vla_deploy.backends import torch_cuda  # noqa: E402
from vla_deploy.backends.fused_inputs import buckets_of  # noqa: E402
from vla_deploy.pipeline import PolicyError  # noqa: E402
from vla_deploy.pipeline.backend import BackendOptions  # noqa: E402
from vla_deploy.pipeline.bundle import open_bundle  # noqa: E402
from vla_deploy.pipeline.fixtures import read_fixtures  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def loaded(golden_bundle, inputs_of):
    """Return variant, number of steps -> pi0's backend, its contract, and inputs for it."""

    def load(variant, steps):
        bundle = open_bundle(golden_bundle('pi0'))
        contract = dataclasses.replace(bundle.contract, denoise_steps=steps)
        bundle = dataclasses.replace(bundle, contract=contract)
        backend = torch_cuda.load(bundle, BackendOptions(provider='cpu', variant=variant))
        return backend, contract, inputs_of(contract)

    return load


def noise(contract, value):
    return np.full((contract.chunk_steps, contract.action.padded_dim), value, np.float32)


def test_when_a_later_prefix_came_expect_steps_of_the_earlier_refused(loaded):
    backend, contract, inputs = loaded('split', 4)
    x, time = noise(contract, 0.0), np.zeros(contract.time_embedding.dim, np.float32)
    first, second = backend.prefix(inputs), backend.prefix(inputs)
    moved, velocity = backend.step(second, x, time, np.float32(-0.5))
    np.testing.assert_allclose(moved, x - 0.5 * velocity, atol=1e-6)
    with pytest.raises(PolicyError, match='overwritten'):
        backend.step(first, x, time, np.float32(-0.5))


@pytest.mark.parametrize('steps', [1, 2])
def test_when_another_chunk_is_computed_expect_the_one_before_unchanged(loaded, steps):
    backend, contract, inputs = loaded('unrolled', steps)
    chunk = backend.whole(inputs, noise(contract, 1.0))
    before = chunk.copy()
    assert not np.array_equal(backend.whole(inputs, noise(contract, 2.0)), before)
    assert np.array_equal(chunk, before)


def test_when_steps_are_many_and_other_times_come_expect_what_graphs_read_kept(loaded):
    steps = torch_cuda.MAX_KNOWN_TIMES + 3
    backend, contract, inputs = loaded('unrolled', steps)
    backend.whole(inputs, noise(contract, 1.0))
    own = {time.tobytes(): backend._constants[time.tobytes()] for time in backend._steps}
    assert len(own) == steps
    prefix, x = backend.prefix(inputs), noise(contract, 1.0)
    for number in range(torch_cuda.MAX_KNOWN_TIMES + 3):
        other = np.full(contract.time_embedding.dim, 0.01 * number, np.float32)
        backend.step(prefix, x, other, np.float32(-0.1))
    assert all(backend._constants[time] is kept for time, kept in own.items())
    assert len(backend._constants) == steps + torch_cuda.MAX_KNOWN_TIMES


@torch.inference_mode()
@pytest.mark.parametrize('measured', [True, False])
def test_when_kernels_were_measured_expect_those_of_other_sizes_launched_before_a_capture(
    measured, serve, monkeypatch
):
    backend, rehearsed = serve('pi0', variant='unrolled')._backend, []
    monkeypatch.setattr(torch_cuda, 'tune', lambda *_: measured)

    def capture(function, rehearsal=None):
        rehearsed.append(rehearsal is not None)
        return function

    monkeypatch.setattr(backend._captures, 'of', capture)
    backend.prepare(lambda: None)
    sizes = len(buckets_of(backend._policy.config, backend._cameras, 1))
    assert sizes > 1
    assert sum(rehearsed) == (sizes - 1 if measured else 0)


@torch.inference_mode()
@pytest.mark.parametrize('name', ['pi0', 'smolvla_2cam_empty'])
def test_when_all_cameras_are_there_expect_the_largest_size_prepared(
    name, serve, golden_bundle, monkeypatch
):
    policy = serve(name, variant='unrolled')
    backend, tuned = policy._backend, []
    monkeypatch.setattr(torch_cuda, 'tune', lambda *given: tuned.append(given[2]))
    backend.prepare(lambda: None)
    prepared = set(backend._runs)
    fixture = read_fixtures(golden_bundle(name) / 'fixtures.npz', policy.contract)[0]
    assert len(fixture.observation.images) == len(policy.contract.cameras)
    long = dataclasses.replace(fixture.observation, instruction='pick it up ' * 100)
    policy.infer(long)
    backend.prefix(policy._take(0, long).inputs)
    backend.step(
        backend._prefixes, noise(policy.contract, 1.0), backend._steps[0], np.float32(-0.1)
    )
    assert set(backend._runs) == prepared  # nothing is made while the robot waits
    assert len(prepared) == sum(what == 'first' for what, _ in prepared) + len(('later', 'step'))
    largest = max(bucket for what, bucket in prepared if what == 'first')
    assert [tuple(own.tokens.shape) for own in tuned] == [(1, largest.tokens)]
    assert len(tuned[0].images) == largest.cameras == len(policy.contract.cameras)


@torch.inference_mode()
@pytest.mark.parametrize('name', ['pi0', 'pi05', 'smolvla_3cam'])
def test_when_a_policy_is_shortened_expect_it_to_call_all_that_the_whole_one_does(name, serve):
    backend = serve(name, variant='unrolled')._backend
    policy, called = backend._policy, []
    short = policy.shortest()
    assert len(short.expert.layers) < len(policy.expert.layers)
    bucket = buckets_of(policy.config, backend._cameras, 1)[-1]
    inputs, constants = backend._inputs_of(bucket), backend._constants_of(backend._steps[0]).views
    for own in (policy, short):
        policy.length.fill_(1)
        with Calls() as calls:
            own.prefix(inputs)
            own.prefix_and_first_step(inputs, backend._x, backend._dt, constants)
            own.step(backend._x, backend._dt, constants)
        called.append(calls.made)
    assert called[0] == called[1]


class Calls(TorchDispatchMode):
    """Keeps what was called that computes, with shapes."""

    def __init__(self):
        super().__init__()
        self.made = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        shapes = tuple(tuple(a.shape) for a in arguments if isinstance(a, torch.Tensor))
        if not function.is_view:
            self.made.add((function, shapes))
        return function(*arguments, **(keywords or {}))


@torch.inference_mode()
@pytest.mark.parametrize(('name', 'apart'), [('pi0', True), ('pi05', False)])
def test_when_steps_need_no_product_of_a_library_expect_them_captured_beside(
    name, apart, serve, monkeypatch
):
    backend, captured = serve(name, variant='unrolled')._backend, []
    backend._runs.clear()
    backend._current = None
    for which in ('_captures', '_step_captures'):
        monkeypatch.setattr(
            getattr(backend, which), 'of',
            lambda function, *_, which=which, **given: captured.append((which, given)) or function,
        )
    monkeypatch.setattr(torch_cuda, 'tune', lambda *_: False)
    backend.prepare(lambda: None)
    beside = [given for which, given in captured if which == '_step_captures']
    assert beside == ([{'multiplies': False}] * len(('later', 'step')) if apart else [])
    assert len(captured) == len(backend._runs)


@torch.inference_mode()
@pytest.mark.parametrize('known', [True, False])
def test_when_kernels_of_a_step_will_be_measured_expect_no_graph_of_it_before(
    known, serve, monkeypatch
):
    backend, order = serve('pi0', variant='unrolled')._backend, []
    backend._runs.clear()
    backend._current = None
    monkeypatch.setattr(torch_cuda, 'launch_early', lambda *_: known)
    monkeypatch.setattr(torch_cuda, 'tune', lambda *_: order.append('tune'))
    monkeypatch.setattr(
        backend._step_captures, 'of',
        lambda function, **_: order.append('capture') or function,
    )
    backend.prepare(lambda: None)
    assert order == (['capture', 'capture', 'tune'] if known else ['tune', 'capture', 'capture'])


@torch.inference_mode()
def test_when_graphs_are_made_expect_what_was_compiled_kept_then(serve, monkeypatch):
    backend, order = serve('pi0', variant='unrolled')._backend, []
    monkeypatch.setattr(torch_cuda, 'tune', lambda *_: order.append('tune'))
    monkeypatch.setattr(backend._policy.ops, 'keep', lambda: order.append('keep'))
    backend.prepare(lambda: None)
    assert order == ['tune', 'keep']


@torch.inference_mode()
@pytest.mark.parametrize('name', ['pi0', 'pi05'])
def test_when_a_step_can_be_done_again_expect_the_bits_of_steps_one_by_one(
    name, serve, monkeypatch
):
    backend, replaced = serve(name, variant='unrolled')._backend, []
    policy, dt = backend._policy, backend._dt.fill_(-0.1)
    x = torch.randn_like(backend._x)
    constants = [backend._constants_of(embedding).views for embedding in backend._steps]
    moved = x
    for own in constants:
        moved, _ = policy.step(moved, dt, own)

    def recorded(run):
        result = run()

        def again(instead):
            by = {id(old): new for old, new in instead}
            replaced.append(by)
            own = constants[0].changed(lambda tensor: by[id(tensor)])
            by[id(result[0])].copy_(policy.step(by[id(x)], dt, own)[0])

        return result, again

    monkeypatch.setattr(policy.ops, 'recorded', recorded)
    assert torch.equal(policy.steps(x, dt, constants), moved)
    assert len(replaced) == len(constants) - 1 > 1
