# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The audit log: what is written is read again, what was changed found, what was lost said."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from audit_logs import FIRST, WAIT_S, kinds, new_log, wait_for, write_steps, written
from hypothesis import given
from hypothesis import strategies as st

from vla_deploy.core.audit_file import (
    TamperedError,
    UnreadableError,
    file_name,
    read_records,
    verify_log,
)
from vla_deploy.core.chain import NO_HEAD, seal


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


@pytest.mark.parametrize('name', [FIRST, 'alone.jsonl'])
def test_when_the_only_record_is_changed_or_cut_anywhere_expect_it_tampered_and_not_no_log(
    tmp_path: Path, name: str
) -> None:
    line, _ = seal({'kind': 'genesis', 'n': 0}, NO_HEAD)
    path = tmp_path / name
    changes = [line[:at] + bytes([byte]) + line[at + 1:]
               for at in range(len(line)) for byte in (0, ord('\n'), line[at] ^ 1)]
    for changed in (*changes, *(line[:kept] for kept in range(1, len(line)))):
        if changed != line:
            path.write_bytes(changed)
            with pytest.raises(TamperedError):
                verify_log(path)


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
    (tmp_path / FIRST).write_bytes(b'')
    with pytest.raises(TamperedError, match='record 0: is missing'):
        verify_log(tmp_path)
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
