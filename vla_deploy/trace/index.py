# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""An index over the bags below a folder, so that thousands are searched in less than a second.

It is a file in that folder and holds nothing that the bags do not: it may be deleted. Only bags
that are new or have changed are read.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla_deploy.trace.bag import Bag, BagError
from vla_deploy.trace.episodes import Contents, read_contents
from vla_deploy.trace.labels import LABELS, read_labels

INDEX = '.traces.sqlite'
TIMEOUT_S = 30.0  # another process may be writing
_VERSION = 2
_UNREAD = -1  # instead of a size: it is to be read again
_TABLES = """
DROP TABLE IF EXISTS bags;
DROP TABLE IF EXISTS episodes;
CREATE TABLE bags (
    path TEXT PRIMARY KEY, folder_ns INTEGER, labels_ns INTEGER, size INTEGER, problem TEXT
);
CREATE TABLE episodes (
    bag TEXT, number INTEGER, session_id TEXT, task TEXT, model_sha256 TEXT, robot TEXT,
    begin_ns INTEGER, end_ns INTEGER, chunks INTEGER, refused INTEGER, violations INTEGER,
    stopped TEXT, result TEXT, source TEXT, p50_ms REAL, p95_ms REAL, p99_ms REAL, max_ms REAL,
    latency_ms BLOB, PRIMARY KEY (bag, number)
);
CREATE INDEX by_time ON episodes (begin_ns);
CREATE INDEX by_session ON episodes (session_id);
"""


class TraceIndexError(ValueError):
    """The index cannot be used; the one-line message names its file."""


@dataclass(frozen=True)
class Update:
    """Bags that were read, bags that are gone, and what is wrong with which."""

    read: int
    gone: int
    problems: dict[str, str]


def open_index(folder: Path, file: Path | None = None) -> sqlite3.Connection:
    """Open the index of a folder, or make an empty one; raises TraceIndexError."""
    if not folder.is_dir():
        raise TraceIndexError(f'{folder}: is no folder')
    if any(folder.glob('*.mcap')):
        raise TraceIndexError(f'{folder}: is a bag: name the folder that holds the bags')
    path = file or folder / INDEX
    try:
        database = sqlite3.connect(path, timeout=TIMEOUT_S)
        version = _version(database)
        if version > _VERSION:
            raise TraceIndexError(f'{path}: is of a newer version: delete it')
        if version < _VERSION:
            _make_tables(database)
    except sqlite3.Error as error:
        raise TraceIndexError(f'{path}: {error}; --index names another file') from error
    return database


def _version(database: sqlite3.Connection) -> int:
    (version,) = database.execute('PRAGMA user_version').fetchone()
    return int(version)


def _make_tables(database: sqlite3.Connection) -> None:
    """Make empty tables in place of those of an older version: the bags hold all of it."""
    with database:
        database.execute('BEGIN IMMEDIATE')
        if _version(database) < _VERSION:  # else another process was faster
            for statement in _TABLES.split(';'):
                database.execute(statement)
            database.execute(f'PRAGMA user_version = {_VERSION}')


def update(database: sqlite3.Connection, folder: Path) -> Update:
    """Read the bags below a folder that are new or have changed, forget those that are gone.

    Raises TraceIndexError where the index cannot be written.
    """
    try:
        return _update(database, folder)
    except sqlite3.Error as error:
        (_, _, path) = database.execute('PRAGMA database_list').fetchone()
        raise TraceIndexError(f'{path}: {error}; --index names another file') from error


def _update(database: sqlite3.Connection, folder: Path) -> Update:
    known = {
        path: (folder_ns, labels_ns, size, problem)
        for path, folder_ns, labels_ns, size, problem in database.execute('SELECT * FROM bags')
    }
    read, seen = 0, set()
    with database:
        for path, folder_ns in _bags_below(folder, known):
            seen.add(path)
            was = known.get(path)
            stamps = folder_ns, _labels_ns(Path(path))
            unchanged = was is not None and was[:2] == stamps
            if unchanged and not (was[3] and _size(Path(path)) != was[2]):
                continue
            read += 1
            _read(database, path, stamps)
        gone = set(known) - seen
        for path in gone:
            _forget(database, path)
    problems = dict(database.execute("SELECT path, problem FROM bags WHERE problem != ''"))
    return Update(read, len(gone), problems)


def _bags_below(folder: Path, known: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield each folder that holds an MCAP file, with the time of its last change.

    A link to a folder is not followed: what it leads to would count twice, or without end.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                continue
            is_bag = entry.path in known or any(Path(entry.path).glob('*.mcap'))
            if is_bag:
                yield entry.path, entry.stat().st_mtime_ns
            else:
                yield from _bags_below(Path(entry.path), known)


def _read(database: sqlite3.Connection, path: str, stamps: tuple[int, int]) -> None:
    _forget(database, path)
    size, contents, labels, problem = _UNREAD, Contents('', []), {}, ''
    try:
        contents = read_contents(Bag(Path(path)))
        labels = read_labels(Path(path))
        size, problem = _size(Path(path)), contents.broken
    except (BagError, OSError) as error:
        problem = str(error)
    database.execute('INSERT INTO bags VALUES (?, ?, ?, ?, ?)', (path, *stamps, size, problem))
    rows = []
    for number, episode in enumerate(contents.episodes):
        given = labels.get(episode.session_id)
        rows.append((
            path, number, episode.session_id, episode.task, episode.model_sha256, contents.robot,
            episode.begin_ns, episode.end_ns, episode.chunks, episode.refused, episode.violations,
            episode.stopped, given or episode.result,
            'label' if given else 'action' if episode.result != 'unknown' else '',
            *_percentiles(episode.latency_ms), np.asarray(episode.latency_ms, np.float32).tobytes(),
        ))  # fmt: skip
    holes = ', '.join('?' * 19)
    database.executemany(f'INSERT INTO episodes VALUES ({holes})', rows)


def _percentiles(latency_ms: list[float]) -> list[float | None]:
    if not latency_ms:
        return [None] * 4
    return [float(p) for p in np.percentile(latency_ms, (50, 95, 99, 100))]


def _forget(database: sqlite3.Connection, path: str) -> None:
    database.execute('DELETE FROM bags WHERE path = ?', (path,))
    database.execute('DELETE FROM episodes WHERE bag = ?', (path,))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob('*.mcap') if path.is_file())


def _labels_ns(folder: Path) -> int:
    """Return when the labels were changed; a file that is edited in place changes no folder."""
    try:
        return (folder / LABELS).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
