# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""`validate export --init-ci`: a workflow that GitHub can read and whose command really runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from vla_deploy.cli.validate import main

FILE = '.github/workflows/vla_parity.yml'


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(text):
    """Return the workflow; BaseLoader leaves the key `on` a string, as GitHub does."""
    return yaml.load(text, Loader=yaml.BaseLoader)


def run_step(flow):
    (step,) = (s for s in flow['jobs']['parity']['steps'] if 'parity ladder' in s.get('name', ''))
    return step['run']


def test_when_asked_for_expect_a_workflow_at_githubs_place(here):
    assert main(['export', 'models/arm', '--init-ci']) == 0
    flow = parsed((here / FILE).read_text(encoding='utf-8'))
    assert set(flow['on']) == {'push', 'pull_request', 'workflow_dispatch'}
    assert flow['permissions'] == {'contents': 'read'}
    assert flow['env']['BUNDLE'] == 'models/arm'
    for step in flow['jobs']['parity']['steps']:
        assert ('uses' in step) != ('run' in step)
    assert '@' not in flow['env']['VLA_DEPLOY'] + flow['env']['THRESHOLD']


def test_when_written_to_stdout_expect_no_file(here, capsys):
    assert main(['export', 'b', '--init-ci', '--ci-file', '-', '--threshold', '1e-5']) == 0
    assert parsed(capsys.readouterr().out)['env']['THRESHOLD'] == '1e-05'
    assert not list(here.iterdir())


def test_when_the_file_is_there_expect_exit_2_and_it_untouched(here, capsys):
    (here / '.github/workflows').mkdir(parents=True)
    (here / FILE).write_text('mine', encoding='utf-8')
    assert main(['export', 'b', '--init-ci']) == 2
    assert 'exists already' in capsys.readouterr().err
    assert (here / FILE).read_text(encoding='utf-8') == 'mine'


@pytest.mark.parametrize('path', ['/srv/bundle', '../bundle'])
def test_when_a_path_is_outside_expect_exit_2(here, capsys, path):
    assert main(['export', path, '--init-ci']) == 2
    assert 'relative to the root of the repository' in capsys.readouterr().err
    assert not list(here.iterdir())


def test_when_names_are_strange_expect_them_unchanged_in_yaml(here):
    assert main(['export', "a 'b\": c#", '--init-ci', '--model', 'über']) == 0
    flow = parsed((here / FILE).read_text(encoding='utf-8'))
    assert flow['env']['BUNDLE'] == "a 'b\": c#"
    assert flow['env']['CHECKPOINT'] == 'über'


@pytest.mark.parametrize('model', [None, 'the checkpoint'])
def test_when_the_step_runs_in_a_shell_expect_what_validate_understands(here, capsys, model):
    command = ['export', 'my bundle', '--init-ci', '--ci-file', '-']
    assert main([*command, *(['--model', model] if model else [])]) == 0
    flow = parsed(capsys.readouterr().out)
    python = here / 'python'
    python.write_text(f'#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\n', encoding='utf-8')
    python.chmod(0o755)
    done = subprocess.run(
        ['bash', '-c', run_step(flow)],
        env={**flow['env'], 'PATH': f'{here}:{os.environ["PATH"]}'},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = ['-m', 'vla_deploy.cli.validate', 'export', 'my bundle']
    expected += ['--model', model] if model else []
    expected += ['--threshold', '0.0001', '--output-json', 'parity.json']
    assert done.stdout.strip() == str(expected)


def test_when_a_ci_file_is_given_without_init_ci_expect_a_usage_error(capsys):
    with pytest.raises(SystemExit) as end:
        main(['export', 'b', '--ci-file', 'x.yml'])
    assert end.value.code == 2
    assert '--ci-file needs --init-ci' in capsys.readouterr().err
