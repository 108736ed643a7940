# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""One pass over every data file of a data set, which notes what the checks ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from vla_deploy.trace.dataset import DatasetError, Info, Metadata, read_table

ACTION, TIMESTAMP, EPISODE, TASK = 'action', 'timestamp', 'episode_index', 'task_index'
FRAME, INDEX = 'frame_index', 'index'
REQUIRED_COLUMNS = (ACTION, TIMESTAMP, FRAME, EPISODE, INDEX, TASK)


@dataclass
class Moments:
    """Sums over the rows of one feature, all [dims]."""

    count: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float64]) -> Moments:
        """Return the moments of rows [n, dims]."""
        return cls(len(rows), rows.min(0), rows.max(0), rows.sum(0), np.square(rows).sum(0))

    def joined(self, other: Moments) -> Moments:
        """Return the moments of both."""
        return Moments(
            self.count + other.count, np.minimum(self.low, other.low),
            np.maximum(self.high, other.high), self.total + other.total,
            self.squares + other.squares,
        )  # fmt: skip

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each dim."""
        return self.total / self.count

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of each dim, over all rows."""
        return np.sqrt(np.maximum(0.0, self.squares / self.count - np.square(self.mean)))


@dataclass
class EpisodeRows:
    """What the data hold of one episode; gaps: time between frames [s]. times, frames: timestamp
    [s] and frame_index of each row, in their order; empty where they cannot be read."""

    file: str
    rows: int
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    frames: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    monotonic: bool = True
    worst_gap_s: float = 0.0  # the one that is farthest from 1/fps
    moments: dict[str, Moments] = field(default_factory=dict)


@dataclass
class Scan:
    """All that was found. Keys of the dictionaries are files, where not said otherwise."""

    read: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    missing_columns: dict[str, list[str]] = field(default_factory=dict)
    undeclared_columns: dict[str, list[str]] = field(default_factory=dict)
    wrong_shapes: dict[str, str] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)  # where an action is not
    episodes: dict[int, EpisodeRows] = field(default_factory=dict)
    split_episodes: list[int] = field(default_factory=list)  # in several files
    task_indices: set[int] = field(default_factory=set)
    indices: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # index of each row
    saw_actions: bool = False
    moments: dict[str, Moments] = field(default_factory=dict)
    unmeasured: set[str] = field(default_factory=set)  # features without moments somewhere


def scan(root: Path, info: Info, metadata: Metadata) -> Scan:
    """Read every file that the metadata name."""
    found = Scan()
    for name in dict.fromkeys(episode.data_file for episode in metadata.episodes):
        path = root / name
        if not path.is_file():
            found.unreadable[name] = 'is not there'
            continue
        try:
            _scan_file(found, name, path, info)
        except DatasetError as error:
            found.unreadable[name] = str(error)
    return found


def _scan_file(found: Scan, name: str, path: Path, info: Info) -> None:
    try:
        columns = pyarrow.parquet.read_schema(path).names
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f'cannot be read: {" ".join(str(error).split())}') from error
    wanted = {**dict.fromkeys(REQUIRED_COLUMNS, 1), **info.vectors}
    declared = set(info.features) - set(info.cameras)
    missing = {*wanted, *declared} - set(columns)
    if missing:
        found.missing_columns[name] = sorted(missing)
    undeclared = set(columns) - {*wanted, *declared}
    if undeclared:
        found.undeclared_columns[name] = sorted(undeclared)
    table = read_table(path, [column for column in wanted if column in columns])
    found.read.append(name)
    arrays = {}
    for column in table.column_names:
        rows = _rows(table[column], wanted[column])
        if isinstance(rows, str):
            found.wrong_shapes.setdefault(name, f'{column}: {rows}')
            found.unmeasured.add(column)
        else:
            arrays[column] = rows
    found.unmeasured |= missing & set(info.vectors)
    _note_actions(found, name, table, arrays)
    if TASK in arrays:
        found.task_indices |= {int(i) for i in np.unique(arrays[TASK])}
    if INDEX in arrays:
        found.indices[name] = arrays[INDEX][:, 0]
    _note_moments(found, arrays, info)
    if EPISODE in arrays:
        _note_episodes(found, name, arrays, info)


def _rows(column: pyarrow.ChunkedArray, size: int) -> NDArray[np.float64] | str:
    """Return a column as float64 [rows, size], or what is wrong with its shape."""
    array = column.combine_chunks()
    if isinstance(array, pyarrow.ChunkedArray):
        array = pyarrow.concat_arrays(array.chunks)
    if array.null_count:
        return f'{array.null_count} rows hold nothing'
    rows = len(array)
    while pyarrow.types.is_list(array.type) or pyarrow.types.is_large_list(array.type) or (
        pyarrow.types.is_fixed_size_list(array.type)
    ):
        if not pyarrow.types.is_fixed_size_list(array.type):
            lengths = set(np.diff(array.offsets.to_numpy()).tolist())
            if len(lengths) > 1:
                return f'rows of {min(lengths)} to {max(lengths)} numbers, declared {size}'
        array = array.flatten()
    try:
        values = array.to_numpy(zero_copy_only=False).astype(np.float64)
    except (TypeError, ValueError):
        return f'holds {array.type}, not numbers'
    if rows and values.size != rows * size:
        return f'{values.size / rows:g} numbers a row, declared {size}'
    return values.reshape(rows, size)


def _note_actions(
    found: Scan, name: str, table: pyarrow.Table, arrays: dict[str, NDArray[np.float64]]
) -> None:
    if ACTION not in arrays:
        return
    actions = arrays[ACTION]
    found.saw_actions = True
    bad = np.argwhere(~np.isfinite(actions))
    if len(bad):
        row, dim = bad[0]
        more = f', and {len(bad) - 1} more' if len(bad) > 1 else ''
        found.not_finite.append(f'{name}: row {row}, dim {dim} is {actions[row, dim]}{more}')


def _note_moments(found: Scan, arrays: dict[str, NDArray[np.float64]], info: Info) -> None:
    for name in info.vectors:
        rows = arrays.get(name)
        if rows is None or not len(rows):
            continue
        if not np.isfinite(rows).all():
            found.unmeasured.add(name)
            continue
        moments = Moments.of(rows)
        before = found.moments.get(name)
        found.moments[name] = moments if before is None else before.joined(moments)


def _note_episodes(
    found: Scan, name: str, arrays: dict[str, NDArray[np.float64]], info: Info
) -> None:
    indices = arrays[EPISODE][:, 0].astype(np.int64)
    for index in np.unique(indices):
        mask = indices == index
        rows = EpisodeRows(name, int(mask.sum()))
        if FRAME in arrays:
            rows.frames = arrays[FRAME][mask, 0]
        if TIMESTAMP in arrays:
            rows.times = arrays[TIMESTAMP][mask, 0]
            gaps = np.diff(rows.times)
            if len(gaps):
                rows.monotonic = bool((gaps > 0).all())
                rows.worst_gap_s = float(gaps[np.argmax(np.abs(gaps - 1.0 / info.fps))])
        for feature in info.vectors:
            values = arrays.get(feature)
            if values is not None and np.isfinite(values[mask]).all():
                rows.moments[feature] = Moments.of(values[mask])
        if int(index) in found.episodes:
            found.split_episodes.append(int(index))
        found.episodes[int(index)] = rows


def first(problems: dict[str, Any]) -> str:
    """Return the first of several problems as one text."""
    name, problem = next(iter(problems.items()))
    more = f' (and {len(problems) - 1} more files)' if len(problems) > 1 else ''
    return f'{name}: {problem}{more}'
