# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""`up` and `demo` before anything is started: the export at first use, and wrong options."""

from __future__ import annotations

import errno

import pytest

from vla_deploy.cli import demo, up

COMMANDS = [
    pytest.param(up, ['franka', 'sim:=true'], 0, id='up'),
    pytest.param(demo, [], 1, id='demo'),
]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs a command whose export raises; gives its exit code."""

    def start(module, arguments, error):
        def fail(robot, given):
            raise error

        monkeypatch.setattr(module, 'bundle_for', fail)
        monkeypatch.chdir(tmp_path)
        return module.main(arguments)

    return start


@pytest.mark.parametrize(('module', 'arguments', 'code'), COMMANDS)
def test_when_interrupted_while_exporting_expect_one_line(run, capsys, module, arguments, code):
    assert run(module, arguments, KeyboardInterrupt()) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(': interrupted, nothing was started')


@pytest.mark.parametrize(('module', 'arguments', 'code'), COMMANDS)
def test_when_a_file_cannot_be_read_expect_its_name_and_exit_2(
    run, capsys, module, arguments, code
):
    error = PermissionError(errno.EACCES, 'Permission denied', '/policies/reach/config.json')
    assert run(module, arguments, error) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(': /policies/reach/config.json: Permission denied')


@pytest.fixture
def ready(monkeypatch, tmp_path):
    """A folder to run `demo` in, with a bundle, where nothing may be started."""
    monkeypatch.setattr(demo, 'bundle_for', lambda robot, given: tmp_path)
    monkeypatch.setattr(demo, '_run', lambda *_: pytest.fail('was started'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_when_the_log_of_a_demo_cannot_be_opened_expect_its_name_and_exit_2(ready, capsys):
    (ready / 'out' / 'nodes.log').mkdir(parents=True)
    assert demo.main(['--output', 'out']) == 2
    assert capsys.readouterr().err == 'demo: out/nodes.log: Is a directory\n'


def test_when_the_output_of_a_demo_is_a_file_expect_it_said_and_exit_2(ready, capsys):
    (ready / 'out').write_text('mine')
    assert demo.main(['--output', 'out']) == 2
    assert capsys.readouterr().err == 'demo: out: is no folder; give another --output\n'


def test_when_the_bundle_of_a_demo_is_missing_expect_no_folder_left(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert demo.main(['--bundle', 'gone', '--output', 'out']) == 2
    assert 'gone is not a folder' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_when_a_demo_is_asked_for_help_expect_where_its_report_goes(capsys):
    with pytest.raises(SystemExit):
        demo.main(['--help'])
    assert 'default build/demo, in the current folder' in ' '.join(capsys.readouterr().out.split())


def test_when_up_gets_no_arguments_expect_the_robot_alone_required(capsys):
    with pytest.raises(SystemExit) as end:
        up.main([])
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith('are required: robot\n')
