# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the audit log says and does where a disk refuses, and when it forces what it wrote."""

import contextlib
import dataclasses
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from audit_logs import FIRST, WAIT_S, kinds, lost, new_log, wait_for, write_steps, written
from guard_world import World

from vla_deploy.core.audit_file import (
    AuditError,
    file_name,
    read_records,
    verify_log,
)
from vla_deploy.core.guard_io import Inputs


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_when_the_disk_refuses_expect_it_said_and_the_log_whole_and_going_on_afterwards(
    tmp_path: Path,
) -> None:
    log = new_log(tmp_path / 'log')
    log.start()
    write_steps(log, 5)
    written(log, 6)
    with largest_file((log.folder / FIRST).stat().st_size + 100):
        write_steps(log, 7)
        lost(log, 7)
        assert log.loss().endswith('File too large; 7 records lost')
        assert log.loss().endswith('File too large; 7 records lost')  # it still is
        assert verify_log(log.folder).records == 6
    write_steps(log, 3)
    assert log.close(WAIT_S)
    records = [record for _, record in read_records(log.folder)]
    assert [r['kind'] for r in records] == [
        'genesis', *['step'] * 5, 'lost', *['step'] * 3, 'end']
    assert (records[6]['count'], records[6]['reason']) == (7, 'File too large')


def test_when_the_disk_refuses_the_next_file_expect_the_log_whole_in_the_old_one(
    tmp_path: Path,
) -> None:
    log = new_log(tmp_path / 'log', log_rotate_bytes=4096)
    write_steps(log, 12)
    log.start()  # so that they are one batch, and the file is full after it
    written(log, 13)
    assert (log.folder / FIRST).stat().st_size > 4096
    with largest_file(1):
        write_steps(log, 1)
        lost(log, 1)
    assert [f.name for f in log.folder.iterdir()] == [FIRST]
    write_steps(log, 1)
    assert log.close(WAIT_S)
    assert verify_log(log.folder).closed
    assert [f.name for f in sorted(log.folder.iterdir())] == [FIRST, file_name(1)]


def test_when_the_folder_cannot_be_made_or_exists_expect_an_error_that_names_it(
    tmp_path: Path,
) -> None:
    (tmp_path / 'file').write_text('')
    for folder in (tmp_path / 'file' / 'log', tmp_path):
        with pytest.raises(AuditError, match=f'audit log {folder}: '):
            new_log(folder)
    with largest_file(100), pytest.raises(AuditError, match='File too large'):
        new_log(tmp_path / 'small')


@pytest.mark.parametrize(('policy', 'syncs'), [('never', 1), ('every_second', 3),
                                               ('every_write', 4)])
def test_when_the_fsync_policy_changes_expect_another_number_of_forced_writes(
    tmp_path: Path, policy: str, syncs: int
) -> None:
    log = new_log(tmp_path / 'log', log_fsync=policy)
    world = World()
    log.start()
    for _ in range(2):  # within one second
        out = world.tick()
        log.step(world.ros_ns, world.steady_ns, Inputs(), out)
        written(log, len(world.outputs) + 1)
    assert log.close(WAIT_S)
    assert log.syncs == syncs


def test_when_an_array_is_not_of_numbers_expect_no_record_of_it() -> None:
    from vla_deploy.core.plain import to_plain

    state = dataclasses.replace(World().measured(), position=np.array([None]))
    with pytest.raises(TypeError, match='array of objects'):
        to_plain(state)


def test_when_the_disk_refuses_to_be_forced_expect_it_said_and_every_record_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(tmp_path / 'log', log_fsync='every_write')

    def refuse(descriptor: int) -> None:
        raise OSError(5, 'Input/output error')

    monkeypatch.setattr('os.fsync', refuse)
    log.start()
    write_steps(log, 3)
    written(log, 4)
    wait_for(lambda: 'fsync: Input/output error' in log.loss())
    monkeypatch.undo()
    assert log.close(WAIT_S)
    assert kinds(log.folder) == ['genesis', *['step'] * 3, 'end']
    assert 'fsync' not in log.loss()  # what could not be done then was done at the end


@pytest.mark.parametrize('policy', ['never', 'every_second'])
def test_when_a_full_file_is_left_expect_it_forced_to_the_disk_unless_never(
    tmp_path: Path, policy: str
) -> None:
    log = new_log(tmp_path / 'log', log_fsync=policy, log_rotate_bytes=4096)
    log.start()
    for i in range(3):
        write_steps(log, 6)
        written(log, 1 + 6 * (i + 1))
    files = len(list(log.folder.iterdir()))
    assert files >= 2
    assert (log.syncs >= files) is (policy != 'never')
    assert log.close(WAIT_S)
    assert verify_log(log.folder).closed
