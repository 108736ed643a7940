# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Small LeRobot data sets, written from nothing: v3.0 and v2.1, two episodes, one camera; and what
`validate dataset` says of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla_deploy.cli import validate

FPS, LENGTHS = 30, (12, 8)
JOINTS = ('shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'wrist_roll', 'gripper')
CAMERA = 'observation.images.front'
TASKS = ('reach the red cube', 'put it down')
DATA_PATH = {
    'v3.0': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
    'v2.1': 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet',
}
VIDEO_PATH = {
    'v3.0': 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4',
    'v2.1': 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4',
}


def info(version: str) -> dict:
    """The content of meta/info.json."""
    vector = {'dtype': 'float32', 'shape': [6], 'names': [f'{name}.pos' for name in JOINTS]}
    scalar = {'shape': [1], 'names': None}
    return {
        'codebase_version': version, 'robot_type': 'so101', 'fps': FPS,
        'total_episodes': len(LENGTHS), 'total_frames': sum(LENGTHS), 'total_tasks': len(TASKS),
        'chunks_size': 1000, 'splits': {'train': f'0:{len(LENGTHS)}'},
        'data_path': DATA_PATH[version], 'video_path': VIDEO_PATH[version],
        'features': {
            'action': vector, 'observation.state': vector,
            CAMERA: {'dtype': 'video', 'shape': [16, 16, 3],
                     'names': ['height', 'width', 'channels']},
            'timestamp': {'dtype': 'float32', **scalar},
            **{name: {'dtype': 'int64', **scalar}
               for name in ('frame_index', 'episode_index', 'index', 'task_index')},
        },
    }  # fmt: skip


def episode_rows(index: int) -> dict[str, np.ndarray]:
    """The rows of one episode by column."""
    length, before = LENGTHS[index], sum(LENGTHS[:index])
    t = np.arange(length)
    wave = 0.3 * np.sin(0.3 * (t + before)[:, None] + np.arange(6)) + 0.35
    return {
        'action': wave.astype(np.float32), 'observation.state': (wave * 0.9).astype(np.float32),
        'timestamp': (t / FPS).astype(np.float32), 'frame_index': t,
        'episode_index': np.full(length, index), 'index': t + before,
        'task_index': np.full(length, index),
    }  # fmt: skip


def write_rows(path: Path, rows: dict[str, np.ndarray | list]) -> None:
    """Write a data file; a column of lists may be ragged, one of mappings is of images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        name: pa.array([list(map(float, row)) for row in values], pa.list_(pa.float32()))
        if name in ('action', 'observation.state') else pa.array(values)
        for name, values in rows.items()
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)


def picture(width: int = 16) -> dict[str, bytes | str]:
    """An image as it lies in a row of a data file."""
    stream = io.BytesIO()
    Image.new('RGB', (width, 16), (0, 90, 200)).save(stream, 'PNG')
    return {'bytes': stream.getvalue(), 'path': 'frame.png'}


def write_video(path: Path, frames: int, width: int = 16, fps: int = FPS) -> None:
    """Write a video of grey frames, 16 pixels high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=fps)
        stream.width, stream.height = width, 16
        stream.pix_fmt = 'yuv420p'
        for number in range(frames):
            pixels = np.full((16, width, 3), number * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, 'rgb24')))
        container.mux(stream.encode())


def statistics(parts: list[dict[str, np.ndarray]]) -> dict:
    """What stats.json says of these rows."""
    joined = {name: np.concatenate([part[name] for part in parts])
              for name in ('action', 'observation.state')}  # fmt: skip
    return {
        name: {
            'min': rows.min(0).tolist(), 'max': rows.max(0).tolist(),
            'mean': rows.mean(0).tolist(), 'std': rows.std(0).tolist(), 'count': [len(rows)],
        }
        for name, rows in joined.items()
    }  # fmt: skip


def with_places(table: list[dict]) -> list[dict]:
    """The table of the episodes of v3.0, with where each one lies; all are in one video."""
    before = 0
    for index, row in enumerate(table):
        after = before + row['length']
        row |= {'data/chunk_index': 0, 'data/file_index': index}
        row |= {'dataset_from_index': before, 'dataset_to_index': after}
        row |= {f'videos/{CAMERA}/chunk_index': 0, f'videos/{CAMERA}/file_index': 0}
        row |= {f'videos/{CAMERA}/from_timestamp': before / FPS,
                f'videos/{CAMERA}/to_timestamp': after / FPS}  # fmt: skip
        row |= {'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0}
        before = after
    return table


def write_dataset(root: Path, version: str, change=lambda part, value: value) -> Path:
    """Write a whole data set; `change` may alter each part on its way to the disk.

    Parts: info, numbers (of the episodes), lengths and episodes (as their table says), places (that
    table of v3.0, with what it says of files, rows and times), tasks, rows (a list of episodes),
    stats. Statistics are those of the rows before the change.
    """
    meta = root / 'meta'
    meta.mkdir(parents=True)
    numbers = change('numbers', list(range(len(LENGTHS))))
    episodes = [episode_rows(index) for index in range(len(LENGTHS))]
    for columns, number in zip(episodes, numbers, strict=True):
        columns['episode_index'] = np.full_like(columns['episode_index'], number)
    if version == 'v3.0':
        stats = change('stats', statistics(episodes))
    else:
        each = zip(numbers, episodes, strict=True)
        stats = change('stats', [{'episode_index': n, 'stats': statistics([e])} for n, e in each])
    whole = change('info', info(version))
    (meta / 'info.json').write_text(json.dumps(whole))
    lengths = change('lengths', list(LENGTHS))
    table = change('episodes', [
        {'episode_index': n, 'tasks': [task], 'length': length}
        for n, task, length in zip(numbers, TASKS, lengths, strict=True)
    ])  # fmt: skip
    tasks = change('tasks', dict(enumerate(TASKS)))
    has_videos = whole['features'].get(CAMERA, {}).get('dtype') == 'video'
    if version == 'v3.0':
        table = change('places', with_places(table))
        (meta / 'episodes' / 'chunk-000').mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(table), meta / 'episodes/chunk-000/file-000.parquet')
        names = {'task_index': list(tasks), '__index_level_0__': list(tasks.values())}
        pq.write_table(pa.table(names), meta / 'tasks.parquet')
        (meta / 'stats.json').write_text(json.dumps(stats))
        if has_videos:
            write_video(root / VIDEO_PATH[version].format(video_key=CAMERA, chunk_index=0,
                                                          file_index=0), sum(LENGTHS))  # fmt: skip
    else:
        write_lines(meta / 'episodes.jsonl', table)
        write_lines(meta / 'tasks.jsonl', [{'task_index': i, 'task': t} for i, t in tasks.items()])
        write_lines(meta / 'episodes_stats.jsonl', stats)
    for index, columns in enumerate(change('rows', episodes)):
        place = {'chunk_index': 0, 'file_index': index, 'episode_chunk': 0,
                 'episode_index': numbers[index]}  # fmt: skip
        write_rows(root / DATA_PATH[version].format(**place), columns)
        if version == 'v2.1' and has_videos:
            video = VIDEO_PATH[version].format(video_key=CAMERA, **place)
            write_video(root / video, LENGTHS[index])
    return root


def write_lines(path: Path, rows: list[dict]) -> None:
    """Write JSON lines."""
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def check(root, tmp_path, *options, robot='so101'):
    """Return the exit code and the status of each check, with what those that did not pass say."""
    target = tmp_path / 'result.json'
    code = validate.main(
        ['dataset', str(root), '--robot', robot, '--output-json', str(target), *options]
    )
    checks = json.loads(target.read_text())['checks']
    return code, {c['name']: c['status'] for c in checks}, {c['name']: c for c in checks}


def failing(statuses):
    """The checks that failed."""
    return [name for name, status in statuses.items() if status == 'fail']


def in_rows(column, row, value, episode=0):
    """A change of one value of one episode's rows."""

    def change(part, what):
        if part == 'rows':
            what[episode][column] = what[episode][column].copy()
            what[episode][column][row] = value
        return what

    return change
