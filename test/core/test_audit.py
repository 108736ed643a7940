# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The audit log: what is written is read again, what was changed found, what was lost said."""

import contextlib
import dataclasses
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guard_world import World
from hypothesis import given
from hypothesis import strategies as st

from vla_deploy.core.audit import AuditLog
from vla_deploy.core.audit_config import AuditConfig
from vla_deploy.core.audit_file import (
    AuditError,
    TamperedError,
    UnreadableError,
    file_name,
    read_records,
    verify_log,
)
from vla_deploy.core.chain import NO_HEAD, seal
from vla_deploy.core.guard_io import Inputs
from vla_deploy.core.journal import genesis_of

WAIT_S = 30.0
FIRST = file_name(0)


def new_log(folder: Path, **config: Any) -> AuditLog:
    world = World()
    genesis = genesis_of(world.limits, world.config, {'urdf': 'a' * 64}, {'vla_deploy': '1'})
    return AuditLog(folder, AuditConfig(**config), genesis)


def write_steps(log: AuditLog, count: int) -> None:
    world = World()
    for i in range(count):
        inputs = Inputs(joint_state=world.measured(), arm=i == 1)
        world.ros_ns += 10_000_000
        world.steady_ns += 10_000_000
        log.step(world.ros_ns, world.steady_ns, inputs,
                 world.core.step(world.ros_ns, world.steady_ns, inputs))


def kinds(folder: Path) -> list[str]:
    return [record['kind'] for _, record in read_records(folder)]


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three files that was closed."""
    folder = tmp_path_factory.mktemp('audit') / 'log'
    log = new_log(folder, log_rotate_bytes=4096)
    log.start()
    for i in range(4):
        write_steps(log, 6)
        written(log, 1 + 6 * (i + 1))
    assert log.close(WAIT_S)
    assert len(list(folder.iterdir())) >= 3
    return folder


def written(log: AuditLog, records: int) -> None:
    """Wait until so many records, genesis included, are in the file."""
    wait_for(lambda: log.status().records >= records)


def lost(log: AuditLog, records: int) -> None:
    wait_for(lambda: log.status().lost >= records)


def wait_for(condition: Callable[[], bool]) -> None:
    """Let the thread of the log have its turns until the condition holds."""
    end, turn = time.monotonic() + WAIT_S, threading.Event()
    while not condition():
        assert time.monotonic() < end
        turn.wait(0.001)


def test_when_a_log_is_closed_expect_it_whole_with_the_head_that_was_published(
    tmp_path: Path,
) -> None:
    log = new_log(tmp_path / 'log')
    log.start()
    write_steps(log, 20)
    log.event('activate', 7, node='guard')
    assert log.close(WAIT_S)
    status = log.status()
    result = verify_log(log.folder, status.head)
    assert (result.records, result.head, result.closed) == (23, status.head, True)
    assert (status.records, status.lost) == (23, 0)
    assert kinds(log.folder) == ['genesis', *['step'] * 20, 'event', 'end']
    (event,) = [r for _, r in read_records(log.folder) if r['kind'] == 'event']
    assert (event['name'], event['ros_ns'], event['node']) == ('activate', 7, 'guard')


def test_when_a_log_is_still_written_expect_it_whole_but_not_closed(tmp_path: Path) -> None:
    log = new_log(tmp_path / 'log')
    head = log.status().head
    assert verify_log(log.folder, head) == dataclasses.replace(
        verify_log(log.folder), files=1, records=1, head=head, closed=False)
    log.close(WAIT_S)


def test_when_the_log_rotates_expect_every_file_to_carry_the_chain_on(whole: Path) -> None:
    files = sorted(whole.iterdir())
    result = verify_log(files[1])
    assert result.files == len(files)
    assert result.closed
    assert kinds(whole).count('rotated') == kinds(whole).count('continued') == len(files) - 1
    assert kinds(whole).count('step') == 24
    assert all(f.stat().st_size < 4096 + 24 * 1500 for f in files)


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def tampered(whole: Path, tmp: Path, file: str, data: bytes | None, head: str = '') -> str:
    """Return what is said about the log with one file replaced, or removed."""
    folder = copy(whole, tmp / 'changed')
    try:
        if data is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(data)
        with pytest.raises(TamperedError) as error:
            verify_log(folder, head)
        assert '\n' not in str(error.value)
        return str(error.value)
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@given(st.data())
def test_when_any_byte_is_flipped_expect_it_found(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = data.draw(st.sampled_from(sorted(f.name for f in whole.iterdir())))
    changed = bytearray((whole / file).read_bytes())
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    line = (whole / file).read_bytes()[:at].count(b'\n')
    said = tampered(whole, tmp_path_factory.mktemp('flip'), file, bytes(changed))
    begins = sum((whole / f.name).read_bytes().count(b'\n') for f in sorted(whole.iterdir())
                 if f.name < file)
    assert f'{file}: record {begins + line}: ' in said


@given(st.data())
def test_when_records_are_deleted_doubled_moved_or_swapped_expect_it_found(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = data.draw(st.sampled_from(sorted(f.name for f in whole.iterdir())))
    lines = (whole / file).read_bytes().splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    to = data.draw(st.integers(0, len(lines) - 1).filter(lambda i: i != at))
    what = data.draw(st.sampled_from(['delete', 'double', 'move', 'swap']))
    if what == 'delete':
        del lines[at]
    elif what == 'double':
        lines.insert(to, lines[at])
    elif what == 'move':
        lines.insert(to, lines.pop(at))
    else:
        lines[at], lines[to] = lines[to], lines[at]
    head = verify_log(whole).head
    tampered(whole, tmp_path_factory.mktemp('lines'), file, b''.join(lines), head)


@given(st.data())
def test_when_the_tail_is_cut_expect_the_published_head_to_show_it(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    last = max(f.name for f in whole.iterdir())
    content = (whole / last).read_bytes()
    kept = data.draw(st.integers(0, len(content) - 1))
    head = verify_log(whole).head
    said = tampered(whole, tmp_path_factory.mktemp('cut'), last, content[:kept], head)
    assert 'missing' in said or 'cut short' in said


@pytest.mark.parametrize('index', [0, 1, -1])
def test_when_a_file_is_removed_expect_it_named(whole: Path, tmp_path: Path, index: int) -> None:
    file = sorted(f.name for f in whole.iterdir())[index]
    said = tampered(whole, tmp_path, file, None)
    assert file in said
    assert 'missing' in said


def test_when_a_file_is_empty_expect_it_tampered_unless_it_was_only_just_made(
    whole: Path, tmp_path: Path
) -> None:
    assert 'record 0: is missing' in tampered(whole, tmp_path, FIRST, b'')
    last = max(f.name for f in whole.iterdir())
    folder = copy(whole, tmp_path / 'killed')
    (folder / last).write_bytes(b'')
    assert not verify_log(folder).closed


@pytest.mark.parametrize(
    ('records', 'said'),
    [
        ([{'kind': 'step'}], "is of kind 'step', which does not belong here"),
        ([{'kind': 'genesis'}, {'kind': 'genesis'}], "is of kind 'genesis'"),
        ([{'kind': 'genesis'}, {'kind': 'end'}, {'kind': 'step'}], 'follows the end'),
        ([{'kind': 'genesis'}, {'kind': 'rotated', 'to': 'x'}, {'kind': 'step'}],
         'does not follow from the end of the file before'),
        ([{'kind': 'genesis', 'n': 3}], 'does not carry this number'),
        ([{'kind': 4}], 'does not carry this number and a kind'),
    ],
)
def test_when_records_are_chained_but_out_of_place_expect_it_found(
    tmp_path: Path, records: list[dict[str, Any]], said: str
) -> None:
    head, data = NO_HEAD, b''
    for number, record in enumerate(records):
        line, head = seal({'n': number, **record}, head)
        data += line
    (tmp_path / FIRST).write_bytes(data)
    with pytest.raises(TamperedError, match=said):
        verify_log(tmp_path)


def test_when_a_line_is_chained_but_holds_no_mapping_expect_it_found(tmp_path: Path) -> None:
    line, _ = seal([1], NO_HEAD)  # type: ignore[arg-type]
    (tmp_path / FIRST).write_bytes(line)
    with pytest.raises(TamperedError, match='is not a mapping'):
        verify_log(tmp_path)


def test_when_there_is_no_log_expect_it_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / 'nowhere', tmp_path / 'nowhere' / FIRST):
        with pytest.raises(UnreadableError, match=str(path)):
            verify_log(path)
    (tmp_path / FIRST).mkdir()
    with pytest.raises(UnreadableError, match='Is a directory'):
        verify_log(tmp_path)


def test_when_one_file_is_copied_elsewhere_expect_it_verified_alone(
    whole: Path, tmp_path: Path
) -> None:
    alone = tmp_path / 'alone.jsonl'
    log = new_log(tmp_path / 'log')
    log.close(WAIT_S)
    alone.write_bytes((log.folder / FIRST).read_bytes())
    assert verify_log(alone).closed
    alone.write_bytes((whole / file_name(1)).read_bytes())
    with pytest.raises(TamperedError, match='record 0'):
        verify_log(alone)


def test_when_the_queue_is_full_expect_the_rest_counted_in_the_log_where_it_is_missing(
    tmp_path: Path,
) -> None:
    log = new_log(tmp_path / 'log', log_queue_length=4)
    write_steps(log, 10)
    assert 'the queue was full; 6 records lost' in log.loss()
    log.start()
    written(log, 5)
    write_steps(log, 2)
    assert log.close(WAIT_S)
    assert log.status().lost == 6
    records = [record for _, record in read_records(log.folder)]
    assert [r['kind'] for r in records] == [
        'genesis', *['step'] * 4, 'lost', *['step'] * 2, 'end']
    assert (records[5]['count'], records[5]['reason']) == (6, 'the queue was full')
    verify_log(log.folder, log.status().head)


def test_when_the_queue_is_full_at_the_end_expect_the_loss_in_the_log(tmp_path: Path) -> None:
    log = new_log(tmp_path / 'log', log_queue_length=3)
    write_steps(log, 5)
    assert log.close(WAIT_S)
    assert kinds(log.folder) == ['genesis', *['step'] * 3, 'lost', 'end']


def test_when_a_loss_is_over_expect_it_told_once(tmp_path: Path) -> None:
    log = new_log(tmp_path / 'log', log_queue_length=3)
    log.start()
    assert log.loss() == ''
    while not log.status().lost:
        write_steps(log, 50)
    assert 'records lost' in log.loss()
    wait_for(lambda: log.loss() == '')
    assert log.close(WAIT_S)
    assert 'its thread has ended' in log.loss()


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
