# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""`verify_log` as a user calls it: exit codes, and a line that says what is wrong where."""

import pytest
from guard_world import World

from vla_deploy.cli.verify_log import main
from vla_deploy.core.audit import AuditLog
from vla_deploy.core.audit_config import AuditConfig
from vla_deploy.core.audit_file import file_name
from vla_deploy.core.guard_io import Inputs
from vla_deploy.core.journal import genesis_of

WAIT_S = 30.0


@pytest.fixture
def log(tmp_path):
    world = World()
    made = AuditLog(tmp_path / 'log', AuditConfig(),
                    genesis_of(world.limits, world.config, {}, {}))
    out = world.tick()
    for _ in range(3):
        made.step(world.ros_ns, world.steady_ns, Inputs(), out)
    assert made.close(WAIT_S)
    return made


def test_when_the_log_is_whole_expect_exit_code_0_and_its_head(log, capsys):
    head = log.status().head
    assert main([str(log.folder), '--head', head]) == 0
    said = capsys.readouterr().out
    assert 'whole: 5 records in 1 file(s), closed' in said
    assert f'head {head}' in said


def test_when_the_log_is_not_closed_expect_0_and_a_word_about_its_tail(log, capsys):
    path = log.folder / file_name(0)
    path.write_bytes(b''.join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert main([str(log.folder)]) == 0
    assert 'not closed' in (said := capsys.readouterr().out)
    assert 'give --head' in said
    assert main([str(log.folder), '--head', log.status().head]) == 1
    assert 'record 4: is missing' in capsys.readouterr().err


def test_when_a_record_was_changed_expect_exit_code_1_naming_file_and_record(log, capsys):
    path = log.folder / file_name(0)
    path.write_bytes(path.read_bytes().replace(b'"state":1', b'"state":2', 1))
    assert main([str(log.folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'verify_log: {path}: record 1: ')


def test_when_there_is_no_log_expect_exit_code_2_naming_it(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line


@pytest.mark.parametrize(
    'content', [
        b'', b'some words\n', b'{"records": [1]}\n', b'{\n "files": {}\n}\n', b'\x00\xff',
    ],
)
def test_when_a_file_is_no_log_expect_exit_code_2_and_it_said(tmp_path, capsys, content):
    path = tmp_path / 'notes.txt'
    path.write_bytes(content)
    assert main([str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'verify_log: {path}: is no audit log: ')


def test_when_the_head_is_no_hash_expect_exit_code_2_and_it_named(log, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(log.folder), '--head', 'ABC'])
    assert end.value.code == 2
    assert "--head is 'ABC'" in capsys.readouterr().err
