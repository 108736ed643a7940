# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The policy that comes with a robot: proven as it is served."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from test.graph.graph_bundles import reach_bundle
from vla_deploy.bringup import own_policy, robots, share_directory
from vla_deploy.core.parameter import ParameterError
from vla_deploy.export import own_bundle
from vla_deploy.export.own_bundle import SERVING_THREADS, BundleUnavailable, bundle_for


def robots_with_a_policy() -> list[str]:
    found = []
    for robot in robots():
        try:
            own_policy(robot)
        except ParameterError:
            continue
        found.append(robot)
    return found


@pytest.mark.parametrize('robot', robots_with_a_policy())
def test_when_a_robot_comes_with_a_policy_expect_it_proven_on_the_threads_that_serve(
    robot: str,
) -> None:
    path = share_directory() / 'config' / robot / 'inference.yaml'
    served = yaml.safe_load(path.read_text())['/**']['ros__parameters']['threads']
    assert served == SERVING_THREADS


def test_when_the_own_policy_is_exported_expect_rung_1_within_2e_6() -> None:
    receipt = json.loads((reach_bundle() / 'receipt.json').read_text())
    figure = receipt['parity']['worst']['graph_chunk']
    assert figure['max_abs'] <= 2e-6
    assert figure['cosine'] >= 0.9999999


@pytest.fixture
def first_run(tmp_path, monkeypatch):
    """Return a function that asks for the bundle where none is yet; `meanwhile` gets its folder
    while the export runs, which then finds it there."""

    def run(meanwhile):
        def export(command):
            meanwhile(Path(command[command.index('--output') + 1]))
            return 2

        monkeypatch.setenv('VLA_DEPLOY_CACHE', str(tmp_path / 'cache'))
        monkeypatch.setattr(own_bundle, '_run', export)
        return bundle_for('franka', '')

    return run


def test_when_another_first_run_is_sooner_expect_its_bundle(first_run):
    found = first_run(lambda target: shutil.copytree(reach_bundle(), target))
    assert (found / 'receipt.json').is_file()


def test_when_what_another_run_left_is_not_whole_expect_the_failure(first_run):
    def half(target):
        shutil.copytree(reach_bundle(), target)
        (target / 'weights.bin').unlink()

    with pytest.raises(BundleUnavailable, match='failed with exit code 2'):
        first_run(half)


def test_when_the_cache_cannot_be_made_expect_the_variable_to_set(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('', encoding='utf-8')
    monkeypatch.setenv('VLA_DEPLOY_CACHE', str(tmp_path / 'file' / 'cache'))
    with pytest.raises(BundleUnavailable, match='set VLA_DEPLOY_CACHE to a folder') as error:
        bundle_for('franka', '')
    assert f'cache {tmp_path / "file" / "cache"} cannot be made' in str(error.value)


def test_when_the_first_run_is_interrupted_expect_one_line_exit_0_and_nothing_left(tmp_path):
    environment = {**os.environ, 'VLA_DEPLOY_CACHE': str(tmp_path / 'cache')}
    command = [sys.executable, '-m', 'vla_deploy.cli.up', 'franka', 'sim:=true']
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment,
        # a shell in whose background tests run has them ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        for line in process.stderr:
            if 'exporting two graphs' in line:
                assert list((tmp_path / 'cache').iterdir())  # the folder it works in
                process.send_signal(signal.SIGINT)  # to `up` alone, as no terminal would
                break
        rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert rest.splitlines()[-1] == 'up: interrupted, nothing was started'
    assert 'Traceback' not in rest
    assert not list((tmp_path / 'cache').iterdir())
