# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends a verb with exit code 130 and one line, whatever it is at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from vla_deploy.cli import (
    bench,
    guard_explain,
    guard_limits,
    replay,
    traces,
    validate,
    verify_log,
)

# Each verb, and what of it is at work when the key is pressed.
VERBS = [
    pytest.param(bench, '_measure_all', ['B'], id='bench'),
    pytest.param(validate, '_export', ['export', 'B'], id='validate'),
    pytest.param(replay, '_replay', ['BAG'], id='replay'),
    pytest.param(traces, 'open_index', ['query', '--dir', '.'], id='traces'),
    pytest.param(guard_explain, '_explain', ['--bag', 'LOG'], id='guard explain'),
    pytest.param(guard_limits, 'guarded_robot', ['--robot', 'ur5'], id='guard check_limits'),
    pytest.param(verify_log, 'verify_log', ['LOG'], id='verify_log'),
]


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(('verb', 'work', 'arguments'), VERBS)
def test_when_interrupted_at_work_expect_exit_130_and_one_line(
    verb, work, arguments, how, monkeypatch, capsys, request
):
    monkeypatch.setattr(verb, work, lambda *_: signal.raise_signal(how))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # without a handler of its own this ends the tests
    guarded = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        assert verb.main(arguments) == 130
    finally:
        signal.signal(signal.SIGINT, before)
        assert signal.signal(signal.SIGTERM, guarded) is signal.default_int_handler
    program = request.node.callspec.id.rsplit('-', 1)[0]
    assert capsys.readouterr().err == f'{program}: interrupted\n'


@pytest.mark.parametrize('verb', ['bench', 'demo', 'guard_explain'])
def test_when_interrupted_while_modules_are_read_expect_exit_130_and_one_line(verb, tmp_path):
    (tmp_path / 'numpy.py').write_text('raise KeyboardInterrupt')
    path = f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
    done = subprocess.run(
        [sys.executable, '-m', f'vla_deploy.cli.{verb}'], capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': path}, check=False, timeout=60,
    )
    assert (done.returncode, done.stderr) == (130, 'interrupted\n')
