# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a LeRobot data set says of itself: info, episodes, tasks and statistics, v2.1 and v3.0.

v3.0 puts many episodes into a file and tells in `meta/episodes/` which lies where; v2.1 has a file
for each episode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

INFO = 'meta/info.json'
VERSIONS = ('v2.1', 'v3.0')
REQUIRED_KEYS = ('codebase_version', 'fps', 'total_episodes', 'total_frames', 'features',
                 'data_path')  # fmt: skip
VISUAL = ('video', 'image')


class DatasetError(ValueError):
    """A file of the data set cannot be read; the one-line message names it."""


@dataclass(frozen=True)
class Episode:
    """One episode as the metadata tells; `videos`: camera's feature -> file.

    rows: which of the data set are its own, from and to before. spans: camera's feature -> where in
    its video the episode is [s]. Both are of v3.0 alone.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data_file: str
    videos: Mapping[str, str]
    rows: tuple[int, int] | None = None
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Info:
    """`meta/info.json`."""

    version: str
    fps: float
    total_episodes: int
    total_frames: int
    features: Mapping[str, Mapping[str, Any]]
    data_path: str
    video_path: str
    chunks_size: int

    @property
    def cameras(self) -> list[str]:
        """Features that lie in videos."""
        return [name for name, f in self.features.items() if f['dtype'] == 'video']

    @property
    def pictures(self) -> list[str]:
        """Features that are images within the data files."""
        return [name for name, f in self.features.items() if f['dtype'] == 'image']

    @property
    def vectors(self) -> dict[str, int]:
        """Features of numbers -> how many there are in a row."""
        sizes = {}
        for name, declared in self.features.items():
            if declared['dtype'] not in (*VISUAL, 'string'):
                size = 1
                for length in declared['shape']:
                    size *= int(length)
                sizes[name] = size
        return sizes


@dataclass
class Metadata:
    """What could be read beside the info; `problems`: file -> why it could not."""

    episodes: list[Episode] = field(default_factory=list)
    tasks: dict[int, str] = field(default_factory=dict)
    statistics: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    episode_statistics: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def feature_names(feature: Mapping[str, Any]) -> list[str]:
    """Return the names that a feature gives its dims; empty without any."""
    names = feature.get('names')
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    return [str(name) for name in names] if isinstance(names, list) else []


def read_info(root: Path) -> Info:
    """Read meta/info.json; raises DatasetError naming the key that is wrong."""
    values = _read_json(root / INFO)
    if not isinstance(values, dict):
        raise DatasetError(f'{INFO}: must be a mapping')
    missing = [key for key in REQUIRED_KEYS if key not in values]
    if missing:
        raise DatasetError(f'{INFO}: has no {", ".join(missing)}')
    version = values['codebase_version']
    if version not in VERSIONS:
        raise DatasetError(f'{INFO}: codebase_version is {version!r}, not one of '
                           f'{", ".join(VERSIONS)}')  # fmt: skip
    features = values['features']
    try:
        for name, feature in features.items():
            tuple(map(int, feature['shape'])), str(feature['dtype'])
            if 'names' in feature and isinstance(feature['names'], str):
                raise ValueError(f'names of {name} is a text')
        fps = float(values['fps'])
        info = Info(
            version, fps, int(values['total_episodes']), int(values['total_frames']), features,
            str(values['data_path']), str(values.get('video_path') or ''),
            int(values.get('chunks_size', 1000)),
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f'{INFO}: cannot be read: {type(error).__name__} {error}') from error
    if not fps > 0 or info.chunks_size < 1:
        raise DatasetError(f'{INFO}: fps is {fps!r} and chunks_size {info.chunks_size}')
    if info.cameras and not info.video_path:
        raise DatasetError(f'{INFO}: has no video_path, but {info.cameras[0]} is a video')
    return info


def read_metadata(root: Path, info: Info) -> Metadata:
    """Read episodes, tasks and statistics, each as far as it can be read."""
    metadata = Metadata()
    readers = _READERS[info.version]
    for part, (path, read) in readers.items():
        try:
            setattr(metadata, part, read(root, info))
        except DatasetError as error:
            metadata.problems[part] = str(error)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            metadata.problems[part] = f'{path}: {type(error).__name__} {error}'
    return metadata


def read_table(path: Path, columns: list[str] | None = None) -> pyarrow.Table:
    """Read a Parquet file; raises DatasetError naming it."""
    try:
        return pyarrow.parquet.ParquetFile(path).read(columns)
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f'{path}: cannot be read: {" ".join(str(error).split())}') from error


def _episodes_v3(root: Path, info: Info) -> list[Episode]:
    files = sorted((root / 'meta' / 'episodes').glob('*/*.parquet'))
    if not files:
        raise DatasetError('meta/episodes: holds no Parquet file')
    rows = [row for file in files for row in read_table(file).to_pylist()]
    return [
        Episode(
            row['episode_index'], row['length'], tuple(row['tasks']),
            info.data_path.format(chunk_index=row['data/chunk_index'],
                                  file_index=row['data/file_index']),
            {
                camera: info.video_path.format(
                    video_key=camera, chunk_index=row[f'videos/{camera}/chunk_index'],
                    file_index=row[f'videos/{camera}/file_index'],
                )
                for camera in info.cameras
            },
            (int(row['dataset_from_index']), int(row['dataset_to_index'])),
            {
                camera: (float(row[f'videos/{camera}/from_timestamp']),
                         float(row[f'videos/{camera}/to_timestamp']))
                for camera in info.cameras
            },
        )
        for row in rows
    ]  # fmt: skip


def _episodes_v2(root: Path, info: Info) -> list[Episode]:
    episodes = []
    for row in _read_lines(root / 'meta' / 'episodes.jsonl'):
        index = int(row['episode_index'])
        place = {'episode_chunk': index // info.chunks_size, 'episode_index': index}
        videos = {c: info.video_path.format(video_key=c, **place) for c in info.cameras}
        data_file = info.data_path.format(**place)
        episodes.append(Episode(index, int(row['length']), tuple(row['tasks']), data_file, videos))
    return episodes


def _tasks_v3(root: Path, info: Info) -> dict[int, str]:
    table = read_table(root / 'meta' / 'tasks.parquet')
    texts = [name for name in table.column_names if name != 'task_index']
    if 'task_index' not in table.column_names or len(texts) != 1:
        raise DatasetError(f'meta/tasks.parquet: has the columns {table.column_names}')
    rows = zip(table['task_index'].to_pylist(), table[texts[0]].to_pylist(), strict=True)
    return dict(rows)


def _tasks_v2(root: Path, info: Info) -> dict[int, str]:
    rows = _read_lines(root / 'meta' / 'tasks.jsonl')
    return {int(row['task_index']): str(row['task']) for row in rows}


def _statistics_v3(root: Path, info: Info) -> dict[str, Mapping[str, Any]]:
    return dict(_read_json(root / 'meta' / 'stats.json'))


def _statistics_v2(root: Path, info: Info) -> dict[int, Mapping[str, Any]]:
    rows = _read_lines(root / 'meta' / 'episodes_stats.jsonl')
    return {int(row['episode_index']): row['stats'] for row in rows}


_READERS: dict[str, dict[str, tuple[str, Any]]] = {
    'v3.0': {
        'episodes': ('meta/episodes', _episodes_v3),
        'tasks': ('meta/tasks.parquet', _tasks_v3),
        'statistics': ('meta/stats.json', _statistics_v3),
    },
    'v2.1': {
        'episodes': ('meta/episodes.jsonl', _episodes_v2),
        'tasks': ('meta/tasks.jsonl', _tasks_v2),
        'episode_statistics': ('meta/episodes_stats.jsonl', _statistics_v2),
    },
}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise DatasetError(f'{path}: cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'{path}: is not JSON: {error}') from error


def _read_lines(path: Path) -> list[Mapping[str, Any]]:
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except OSError as error:
        raise DatasetError(f'{path}: cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'{path}: is not JSON lines: {error}') from error
