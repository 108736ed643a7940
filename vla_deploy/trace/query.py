# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Finding episodes in the index, and adding them up."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from vla_deploy.trace.episodes import FAILED, SUCCESS

GROUPS = ('task', 'model', 'day', 'robot')
_UNITS_S = {'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 7 * 86400}
_COLUMNS = (
    'bag, number, session_id, task, model_sha256, robot, begin_ns, end_ns, chunks, refused, '
    'violations, stopped, result, source, p50_ms, p95_ms, p99_ms, max_ms, latency_ms'
)
# A session counts once, where a bag was repaired or copied: as it was labelled, else as it is in
# the bag that was closed.
_ONCE = """NOT EXISTS (
    SELECT 1 FROM episodes AS other
    JOIN bags AS other_bag ON other_bag.path = other.bag JOIN bags AS own_bag
    ON own_bag.path = own.bag
    WHERE other.session_id = own.session_id AND own.session_id != '' AND other.bag != own.bag
    AND (other.source != 'label', other_bag.problem != '', other.bag)
        < (own.source != 'label', own_bag.problem != '', own.bag)
)"""
LARGEST = 2**63 - 1  # whole number that SQLite takes


class QueryError(ValueError):
    """An option of a query makes no sense; the message names it."""


@dataclass(frozen=True)
class Filter:
    """Which episodes; what is empty, or 0, does not restrict. `task` is a part of the text,
    `model` the beginning of the digest, `limit` keeps the newest."""

    since_ns: int = 0
    task: str = ''
    status: str = ''
    model: str = ''
    robot: str = ''
    limit: int = 0


@dataclass(frozen=True, eq=False)
class Found:
    """One episode of the index; `source` of the result is label, action or empty."""

    bag: str
    number: int
    session_id: str
    task: str
    model_sha256: str
    robot: str
    begin_ns: int
    end_ns: int
    chunks: int
    refused: int
    violations: int
    stopped: str
    result: str
    source: str
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    latency_ms: NDArray[np.float32]

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last that was heard of it."""
        return (self.end_ns - self.begin_ns) * 1e-9

    @property
    def begin(self) -> str:
        """When it began, in local time."""
        return datetime.fromtimestamp(self.begin_ns * 1e-9).strftime('%Y-%m-%d %H:%M:%S')


@dataclass(frozen=True, eq=False)
class Group:
    """Episodes of one task, model, day or robot, added up."""

    name: str
    episodes: int
    successes: int
    failures: int
    latency_ms: NDArray[np.float32]


def since_ns(text: str, now_ns: int) -> int:
    """Return the time that `7d`, `12h`, `30m` ago or an ISO date means; raises QueryError."""
    span = re.fullmatch(r'(\d+)([smhdw])', text)
    if span:
        return max(now_ns - int(span[1]) * _UNITS_S[span[2]] * 1_000_000_000, 0)
    try:
        return min(round(datetime.fromisoformat(text).timestamp() * 1e9), LARGEST)
    except (ValueError, OverflowError):
        raise QueryError(f'--since {text}: neither a span as 7d or 12h, nor a date') from None


def find(database: sqlite3.Connection, wanted: Filter) -> list[Found]:
    """Return the episodes, the newest first; one that is in several bags once."""
    conditions = {
        'begin_ns >= ?': wanted.since_ns,
        'instr(casefold(task), ?) > 0': wanted.task.casefold(),
        'result = ?': wanted.status,
        'substr(model_sha256, 1, ?) = ?': wanted.model,
        'robot = ?': wanted.robot,
    }
    used = {condition: value for condition, value in conditions.items() if value}
    values = []
    for condition, value in used.items():
        values += [len(str(value)), value] if condition.count('?') == 2 else [value]
    where = f' WHERE {" AND ".join((_ONCE, *used))}'
    limit = f' LIMIT {int(wanted.limit)}' if wanted.limit else ''
    # SQLite's own lower() knows no letters beyond ASCII.
    database.create_function('casefold', 1, str.casefold, deterministic=True)
    query = f'SELECT {_COLUMNS} FROM episodes AS own{where} ORDER BY begin_ns DESC{limit}'
    return [
        Found(*row[:-1], np.frombuffer(row[-1], np.float32))
        for row in database.execute(query, values)
    ]


def summarise(found: list[Found], by: str) -> list[Group]:
    """Return the episodes added up by one of GROUPS, in order of their names."""
    members: dict[str, list[Found]] = {}
    for episode in found:
        name = {'task': episode.task, 'model': episode.model_sha256, 'robot': episode.robot}.get(
            by, episode.begin[:10]
        )
        members.setdefault(name, []).append(episode)
    return [
        Group(
            name,
            len(group),
            sum(episode.result == SUCCESS for episode in group),
            sum(episode.result == FAILED for episode in group),
            np.concatenate([episode.latency_ms for episode in group]),
        )
        for name, group in sorted(members.items())
    ]
