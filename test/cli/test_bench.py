# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""bench: stages and percentiles of a real bundle, and one backend beside another."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import parameters, roofline  # noqa: E402
from vla_deploy.cli import bench  # noqa: E402
from vla_deploy.pipeline import Policy, PolicyError  # noqa: E402

NAME = 'smolvla_2cam_empty'


@pytest.fixture
def run(golden_bundle, tmp_path, capsys):
    """Return arguments -> exit code, rows of the JSON, and what was printed."""

    def call(*arguments):
        path = tmp_path / 'figures.json'
        code = bench.main(
            [str(golden_bundle(NAME)), '--threads', '1', '--json', str(path), *arguments]
        )
        rows = json.loads(path.read_text())['rows'] if path.exists() else None
        printed = capsys.readouterr()
        return code, rows, printed.out + printed.err

    return call


def test_when_backends_are_compared_expect_their_stages_and_how_far_they_are_apart(run):
    code, rows, printed = run(
        '--iterations', '4', '--compare', 'onnx_runtime', 'torch_cuda:cpu:fp32:unrolled'
    )
    assert code == 0
    assert [row['backend'] for row in rows] == [
        'onnx_runtime:cpu:fp32:split', 'torch_cuda:cpu:fp32:unrolled'
    ]
    assert rows[0]['max_abs_to_first'] == 0.0
    assert 0.0 < rows[1]['max_abs_to_first'] < 5e-6
    for row in rows:
        assert row['iterations'] == 4
        assert row['self_test']['passed']
        assert row['host_resident_MiB'] > 50
        assert row['stages']['total']['p99_ms'] >= row['stages']['total']['p50_ms'] > 0
        assert row['backend'] in printed
    assert rows[0]['stages']['prefix']['p50_ms'] > 0
    assert rows[1]['stages']['prefix']['p50_ms'] == 0  # one graph: all of it is the sample


def test_when_a_chunk_holds_nan_expect_the_figure_to_say_so(monkeypatch):
    given = iter([np.zeros((2, 3)), np.array([[0.0, np.nan, 0.0]] * 2)])
    monkeypatch.setattr(bench, '_measure', lambda *_: ({}, [np.zeros((2, 3)), next(given)]))
    rows = bench._measure_all(None, ['one', 'other'], 1, None, 1)
    assert rows[0]['max_abs_to_first'] == 0.0
    assert np.isnan(rows[1]['max_abs_to_first'])


def test_when_one_backend_is_named_expect_it_alone(run):
    code, rows, _ = run('--iterations', '1', '--backend', 'torch_cuda')
    assert (code, [row['backend'] for row in rows]) == (0, ['torch_cuda:cpu:fp32:split'])


def test_when_a_self_test_fails_expect_exit_1_and_the_figures(run, monkeypatch):
    test = Policy.self_test
    monkeypatch.setattr(
        Policy, 'self_test', lambda policy: dataclasses.replace(test(policy), passed=False)
    )
    code, rows, printed = run('--iterations', '1')
    assert (code, len(rows)) == (1, 1)
    assert 'self-test FAILED' in printed


def test_when_a_batch_is_asked_for_expect_it_timed_as_one_run(run):
    code, rows, printed = run(
        '--iterations', '2', '--batch', '3', '--backend', 'torch_cuda:cpu:fp32:unrolled'
    )
    assert (code, rows[0]['batch'], rows[0]['iterations']) == (0, 3, 2)
    assert rows[0]['self_test']['passed']
    stages = {stage: figures['p50_ms'] for stage, figures in rows[0]['stages'].items()}
    assert stages['total'] > stages['sample'] > 0
    assert '2 times 3 chunks' in printed


def test_when_a_backend_takes_one_at_a_time_expect_a_batch_refused(run):
    code, rows, printed = run('--batch', '2', '--backend', 'onnx_runtime')
    assert (code, rows) == (2, None)
    assert 'batch 2 is not possible with backend onnx_runtime' in printed


def test_when_a_backend_cannot_be_fulfilled_expect_exit_2_and_one_line(run):
    code, rows, printed = run('--backend', 'onnx_runtime:rocm')
    assert (code, rows) == (2, None)
    assert 'rocm' in printed.strip().splitlines()[-1]


@pytest.mark.parametrize(
    'arguments',
    [('--iterations', '0'), ('--batch', '0'), ('--backend', ':cpu'), ('--backend', 'a:b:c:d:e')]
)
def test_when_an_argument_is_malformed_expect_usage(run, arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


CEILINGS = roofline.Ceilings(1e9, 1e12)


@pytest.fixture
def on_gpu(monkeypatch):
    """Let the backend's CPU form stand for a card, of which it takes 3 MiB."""
    taken = iter([5 << 20, 8 << 20])

    def load(bundle, name, _provider, *rest, **more):
        return Policy.load(bundle, name, 'cpu', *rest, **more)

    monkeypatch.setattr(bench, 'Policy', SimpleNamespace(load=load))
    monkeypatch.setattr(bench, '_taken_of_gpu', lambda: next(taken))
    monkeypatch.setattr(roofline, 'measure_ceilings', lambda: CEILINGS)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a card')


@pytest.mark.usefixtures('on_gpu')
def test_when_chunks_are_timed_on_a_card_expect_the_floor_of_what_was_timed(run, golden_bundle):
    code, (row,), printed = run('--iterations', '1', '--backend', 'torch_cuda:cuda:fp32:unrolled')
    policy = Policy.load(golden_bundle(NAME), 'onnx_runtime', 'cpu', threads=1)
    first = bench.read_fixtures(golden_bundle(NAME) / 'fixtures.npz', policy.contract)[0]
    cameras, tokens = policy.seen(first.observation)
    assert cameras == len(policy.contract.cameras) < policy.contract.camera_slots
    assert 0 < tokens < policy.contract.tokenizer.max_length
    source = parameters.BundleParameters(policy.bundle, torch.device('cpu'))
    source.finish()
    costs = roofline.phase_costs(
        source.config, cameras=cameras, tokens=tokens, bytes_per_weight=4
    )
    floor_ms = 1e3 * sum(cost.floor_s(CEILINGS) for cost in costs.values())
    assert (code, row['GPU_MiB'], row['card']) == (0, 3.0, 'a card')
    assert row['floor_ms'] == pytest.approx(floor_ms)
    assert row['times_floor'] == pytest.approx(row['stages']['sample']['p50_ms'] / floor_ms)
    assert f'for {cameras} cameras and {tokens} tokens' in printed


@pytest.mark.usefixtures('on_gpu')
@pytest.mark.parametrize(('where', 'name', 'error'), [
    (parameters, 'BundleParameters', PolicyError('holds no parameters.json; export again')),
    (roofline, 'measure_ceilings', RuntimeError('CUDA out of memory.\nTried to allocate')),
])
def test_when_the_floor_cannot_be_had_expect_the_times_without_it(
    where, name, error, run, monkeypatch
):
    on_cpu = bench.Policy.load

    def load(*given, **more):  # a backend that needs the same has loaded before
        loaded = on_cpu(*given, **more)
        monkeypatch.setattr(where, name, fail)
        return loaded

    def fail(*_):
        raise error

    monkeypatch.setattr(bench, 'Policy', SimpleNamespace(load=load))
    code, (row,), printed = run('--iterations', '1', '--backend', 'torch_cuda:cuda')
    assert code == 0
    assert row['stages']['total']['p50_ms'] > 0
    assert row['GPU_MiB'] == 3.0
    assert 'floor_ms' not in row
    assert row['no_floor'] == ' '.join(str(error).split())
    assert f'no floor of the card: {row["no_floor"]}' in printed
