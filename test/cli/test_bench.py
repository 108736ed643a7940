# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""bench: stages and percentiles of a real bundle, and one backend beside another."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip('torch')

from vla_deploy.cli import bench

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
