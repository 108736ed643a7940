# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Reading an audit log and finding out whether it is whole.

A log is a folder of files 000000.jsonl, 000001.jsonl and so on. The first begins with the genesis,
each other one with the head of the one before. Every record carries its number `n` and its `kind`:

    genesis    what the guard was made of
    step       one step of the guard: see core/journal.py
    event      something else worth knowing, as a change of the lifecycle
    lost       `count` records that could not be written here, and the `reason`
    rotated    the log goes on in file `to`
    continued  the log comes from file `from`
    end        the log was closed; nothing follows
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_deploy.core.chain import NO_HEAD, ChainError, unseal

MAX_LINE_BYTES = 256 * 2**20
_NAME = re.compile(r'[0-9]{6}\.jsonl')
_BEGIN, _END = b'{"record":', re.compile(rb',"sha256":"[0-9a-f]{64}"}\n?\Z')  # core/chain.py


class AuditError(ValueError):
    """Something is wrong with an audit log; one line."""


class UnreadableError(AuditError):
    """There is no log, or it may not be read."""


class NoLogError(UnreadableError):
    """What is there is no audit log."""


class TamperedError(AuditError):
    """The log is not what was written; names the record and the file."""


@dataclass(frozen=True)
class Verified:
    """A log that is whole. closed: it ends with its end record, so that its tail is whole too."""

    files: int
    records: int
    head: str
    closed: bool


def file_name(index: int) -> str:
    """Return the name of a file of a log."""
    return f'{index:06d}.jsonl'


def verify_log(log: Path, head: str = '') -> Verified:
    """Check every record of a log, its rotated files included.

    log: its folder, or one of its files. head: a hash that was published while the log was
    written; it must be in the log, so that a tail cut before it shows. Raises UnreadableError and
    TamperedError.
    """
    files, records, last, kind, found = 0, 0, NO_HEAD, '', not head
    for file, number, record, last in _walk(log):
        found = found or last == head
        files, records, kind = file + 1, number + 1, record['kind']
    if not found:
        raise TamperedError(f'{log}: record {records}: is missing: the head {head} is not in the '
                            'log, so its tail was cut or replaced')
    return Verified(files, records, last, kind == 'end')


def read_records(log: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return number and content of each record, checked as `verify_log` does, one by one."""
    for _, number, record, _ in _walk(log):
        yield number, record


def _walk(log: Path) -> Iterator[tuple[int, int, dict[str, Any], str]]:
    """Yield (file, number, record, head) of each record in order."""
    head, number, kind = NO_HEAD, 0, ''
    paths = _files(log)
    if not any(_has_records(path) for path in paths):
        raise NoLogError(f'{log}: is no audit log: no line in it has the form of a record')
    for index, path in enumerate(paths):
        first = True
        for line in _lines(path):
            where = f'{path}: record {number}'
            if not line.endswith(b'\n'):
                raise TamperedError(f'{where}: is cut short, as by a cut tail or a power failure')
            try:
                record, head = unseal(line[:-1], head)
            except ChainError as error:
                raise TamperedError(f'{where}: {error}') from None
            _check_place(where, record, number, kind, index, first)
            kind = record['kind']
            yield index, number, record, head
            number, first = number + 1, False
        # A process may have been killed between making the next file and writing to it.
        if first and (index == 0 or path != paths[-1]):
            raise TamperedError(f'{path}: record {number}: is missing: the file is empty')
        if not first and kind == 'rotated' and path == paths[-1]:
            raise TamperedError(f'{path.parent / record["to"]}: record {number}: is missing')


def _check_place(
    where: str, record: dict[str, Any], number: int, before: str, index: int, first: bool
) -> None:
    """Check that a record is one that belongs at this place."""
    kind = record.get('kind')
    if record.get('n') != number or not isinstance(kind, str):
        raise TamperedError(f'{where}: does not carry this number and a kind')
    if before == 'end':
        raise TamperedError(f'{where}: follows the end of the log')
    wanted = ('genesis' if index == 0 else 'continued') if first else ''
    if (first and kind != wanted) or (not first and kind in ('genesis', 'continued')):
        raise TamperedError(f'{where}: is of kind {kind!r}, which does not belong here')
    if (before == 'rotated') is not (first and index > 0):
        raise TamperedError(f'{where}: does not follow from the end of the file before')


def _files(log: Path) -> list[Path]:
    """Return the files of a log in order; raises UnreadableError and TamperedError."""
    if log.is_file() and not _NAME.fullmatch(log.name):
        return [log]
    folder = log.parent if log.is_file() else log
    try:
        names = sorted(p.name for p in folder.iterdir() if _NAME.fullmatch(p.name))
    except OSError as error:
        raise UnreadableError(f'{log}: cannot be read: {error.strerror}') from None
    if not names:
        raise NoLogError(f'{log}: is not the folder of an audit log: no {file_name(0)}')
    for index, name in enumerate(names):
        if name != file_name(index):
            raise TamperedError(f'{folder / file_name(index)}: the file is missing, {name} is '
                                'there')
    return [folder / name for name in names]


def _has_records(path: Path) -> bool:
    """Whether this was ever part of a log. One changed byte or a cut does not take its form away:
    every line has a beginning and an end, a log that was emptied its name."""
    size = 0
    for line in _lines(path):
        size += len(line)
        if line.startswith(_BEGIN) or _BEGIN.startswith(line) or _END.search(line):
            return True
    return size == 0 and _NAME.fullmatch(path.name) is not None


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open('rb') as file:
            while line := file.readline(MAX_LINE_BYTES):
                yield line
    except OSError as error:
        raise UnreadableError(f'{path}: cannot be read: {error.strerror}') from None
