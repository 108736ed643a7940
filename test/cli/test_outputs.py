# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A file that a verb is to write: looked at before the work, written after the result is shown."""

from __future__ import annotations

import errno

import pytest

from vla_deploy.cli import bench, replay, traces, validate, validate_dataset
from vla_deploy.trace.replay_report import Report

# What each verb would work on is not there: a verb that looks for it first speaks of that.
CASES = [
    pytest.param(bench, ['GONE', '--json', 'FILE'], id='bench'),
    pytest.param(validate, ['export', 'GONE', '--output-json', 'FILE'], id='validate_export'),
    pytest.param(validate, ['dataset', '.', '--robot', 'r2d2', '--output-json', 'FILE'],
                 id='validate_dataset'),
    pytest.param(traces, ['query', '--dir', 'GONE', '--output', 'FILE'], id='traces_query'),
    pytest.param(traces, ['summary', '--by', 'task', '--dir', 'GONE', '--output', 'FILE'],
                 id='traces_summary'),
    pytest.param(replay, ['GONE', '--output-json', 'FILE'], id='replay_json'),
    pytest.param(replay, ['GONE', '--plot', 'FILE'], id='replay_plot'),
]  # fmt: skip


@pytest.mark.parametrize(('verb', 'arguments'), CASES)
def test_when_a_file_cannot_be_written_expect_it_named_before_the_work(
    verb, arguments, tmp_path, monkeypatch, capsys
):
    if verb is validate and 'export' in arguments:
        pytest.importorskip('torch')
    monkeypatch.chdir(tmp_path)
    assert verb.main([a.replace('FILE', 'nowhere/out.json') for a in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        ': nowhere/out.json: cannot be written: No such file or directory; its folder must be '
        'there and writable'
    )


def full(path, data):
    raise OSError(errno.ENOSPC, 'No space left on device', str(path))


def test_when_the_disk_is_full_expect_the_figures_of_a_bench_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, '_measure_all', lambda *_: [])
    monkeypatch.setattr(bench, '_table', lambda rows: ['the table'])
    monkeypatch.setattr(bench, 'write_bytes', full)
    assert bench.main(['BUNDLE', '--json', str(tmp_path / 'out.json')]) == 2
    printed = capsys.readouterr()
    assert printed.out == 'the table\n'
    assert printed.err == f'bench: {tmp_path / "out.json"}: No space left on device\n'


def test_when_the_disk_is_full_expect_the_differences_of_a_replay_shown(
    tmp_path, monkeypatch, capsys
):
    report = Report(('actions',), 'run', gaps=['no chunk'])
    monkeypatch.setattr(replay, '_replay', lambda *_: report)
    monkeypatch.setattr(replay, 'write_bytes', full)
    assert replay.main(['run', '--output-json', str(tmp_path / 'out.json')]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines() == report.lines()
    assert 'not compared: no chunk' in printed.err


def test_when_the_disk_is_full_expect_the_checks_of_a_data_set_shown(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip('pyarrow')
    monkeypatch.setattr(validate_dataset, 'write_bytes', full)
    arguments = ['dataset', str(tmp_path), '--robot', 'so101']
    assert validate.main([*arguments, '--output-json', str(tmp_path / 'out.json')]) == 2
    assert 'FAIL' in capsys.readouterr().out.splitlines()
