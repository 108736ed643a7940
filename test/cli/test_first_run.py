# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""`up` and `demo` where the robot's own policy is to be exported first, and that does not end."""

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
