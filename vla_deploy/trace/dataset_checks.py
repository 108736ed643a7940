# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The checks of a data set: each says what it found, and how to mend it.

A check that could not run did not pass. Where one finds something, the others judge what is left,
so that one fault is found by one check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.limits import JointLimits
from vla_deploy.trace.dataset import DatasetError, feature_names, read_info, read_metadata
from vla_deploy.trace.dataset_facts import FAIL, NOT_RUN, PASS, WARN, Facts, Verdict, knows
from vla_deploy.trace.dataset_rows import fps, indices, timestamps
from vla_deploy.trace.dataset_scan import (
    ACTION,
    REQUIRED_COLUMNS,
    Moments,
    first,
    scan,
)
from vla_deploy.trace.dataset_videos import videos

STATISTICS_TOLERANCE = 1e-3  # of the range of a dim


@dataclass(frozen=True)
class Checked:
    """What one check found; `mend` says what to do about it."""

    name: str
    status: str
    found: str
    mend: str = ''


def check_dataset(root: Path, limits: JointLimits) -> list[Checked]:
    """Run every check over all files of a data set, for a robot with these limits."""
    try:
        info = read_info(root)
    except DatasetError as error:
        mend = 'restore meta/info.json: all else is described there'
        return [Checked('info', FAIL, str(error), mend)] + [
            Checked(name, NOT_RUN, 'meta/info.json cannot be read') for name in CHECKS
        ]
    metadata = read_metadata(root, info)
    facts = Facts(root, info, metadata, scan(root, info, metadata), limits)
    text = f'{info.version}, {info.total_episodes} episodes at {info.fps:g} fps'
    return [Checked('info', PASS, text)] + [
        Checked(name, *check(facts)) for name, check in CHECKS.items()
    ]


def _schema(facts: Facts) -> Verdict:
    features = facts.info.features
    undeclared = [n for n in REQUIRED_COLUMNS if n not in features]
    if undeclared:
        return FAIL, f'meta/info.json declares no feature {", ".join(undeclared)}', (
            'declare every column of the data under features'
        )
    missing = facts.scan.missing_columns
    if missing:
        lacking = {name: f'has no column {", ".join(columns)}' for name, columns in missing.items()}
        return FAIL, first(lacking), 'write the column anew, or take it out of features'
    if not any(name.startswith('observation.') for name in features):
        return FAIL, 'no feature observation.*', 'declare what the policy sees'
    strange = facts.scan.undeclared_columns
    if strange:
        more = {name: f'has the column {", ".join(columns)}, which meta/info.json does not declare'
                for name, columns in strange.items()}  # fmt: skip
        return WARN, first(more), 'declare it under features, or write the data without it'
    return _ran(facts, f'{len(features)} features')


def _files(facts: Facts) -> Verdict:
    problem = facts.metadata.problems.get('episodes')
    if problem:
        return FAIL, problem, 'restore it: it says in which files the episodes lie'
    if facts.scan.unreadable:
        return FAIL, first(facts.scan.unreadable), 'copy the file again, or delete its episodes'
    known = {episode.data_file for episode in facts.metadata.episodes}
    there = {str(path.relative_to(facts.root)) for path in facts.root.glob('data/**/*.parquet')}
    stray = sorted(there - known)
    if stray:
        return WARN, f'{stray[0]}: belongs to no episode', 'delete it, or add its episodes'
    return PASS, f'{len(known)} data files', ''


def _shapes(facts: Facts) -> Verdict:
    if facts.scan.wrong_shapes:
        return FAIL, first(facts.scan.wrong_shapes), (
            'write the rows with the shape that meta/info.json declares, or correct that'
        )
    return _ran(facts, f'{len(facts.info.vectors)} features of numbers')


def _finite(facts: Facts) -> Verdict:
    if facts.scan.not_finite:
        return FAIL, facts.scan.not_finite[0], 'delete the episode, or record it again'
    if not facts.scan.saw_actions:
        return NOT_RUN, 'no action could be read', ''
    return PASS, f'every action of {len(facts.scan.read)} files', ''


def _action_dim(facts: Facts) -> Verdict:
    joints = facts.limits.names
    declared = facts.info.vectors.get(ACTION)
    if declared is None:
        return NOT_RUN, 'meta/info.json declares no action', ''
    if declared != len(joints):
        return FAIL, f'actions have {declared} dims, the robot has {len(joints)} joints', (
            'validate for the robot that was recorded, or convert the actions to its joints'
        )
    names = feature_names(facts.info.features[ACTION])
    if names and [_bare(name) for name in names] != [_bare(name) for name in joints]:
        return WARN, f'actions are called {", ".join(names)}, the joints {", ".join(joints)}', (
            "name the dims of action in meta/info.json as the robot's joints, in their order"
        )
    return PASS, f'{declared} dims', ''


def _episode_count(facts: Facts) -> Verdict:
    info, episodes = facts.info, facts.metadata.episodes
    if 'episodes' in facts.metadata.problems:
        return NOT_RUN, 'the table of the episodes cannot be read', ''
    mend = 'correct the totals of meta/info.json and the table of the episodes'
    if len(episodes) != info.total_episodes:
        return FAIL, f'{len(episodes)} episodes, meta/info.json says {info.total_episodes}', mend
    frames = sum(episode.length for episode in episodes)
    if frames != info.total_frames:
        return FAIL, f'{frames} frames, meta/info.json says {info.total_frames}', mend
    if sorted(episode.index for episode in episodes) != list(range(len(episodes))):
        return FAIL, 'episodes are not numbered from 0 without a gap', mend
    judged = [e for e in episodes if e.data_file in facts.scan.read]
    if not knows(facts, 'episode_index') or len(judged) < len(episodes):
        return NOT_RUN, 'not every file tells its episodes', ''
    if facts.scan.split_episodes:
        return FAIL, f'episode {facts.scan.split_episodes[0]} has rows in several files', mend
    undeclared = sorted(set(facts.scan.episodes) - {episode.index for episode in episodes})
    if undeclared:
        file = facts.scan.episodes[undeclared[0]].file
        return FAIL, f'episode {undeclared[0]} has rows in {file}, but is in no table', mend
    for episode in judged:
        rows = facts.scan.episodes.get(episode.index)
        if rows is None or rows.rows != episode.length or rows.file != episode.data_file:
            have = 0 if rows is None else rows.rows
            return FAIL, (f'episode {episode.index} has {have} rows in {episode.data_file}, its '
                          f'table says {episode.length}'), mend  # fmt: skip
    return PASS, f'{len(episodes)} episodes, {frames} frames', ''


def _statistics(facts: Facts) -> Verdict:
    parts = facts.metadata.problems
    problem = parts.get('statistics') or parts.get('episode_statistics')
    mend = 'compute the statistics anew: training and serving normalise with them'
    if problem:
        return FAIL, problem, mend
    unmeasured = facts.scan.unmeasured | ({ACTION} - set(facts.scan.moments))
    if facts.scan.unreadable or unmeasured:
        what = first(facts.scan.unreadable or dict.fromkeys(sorted(unmeasured), 'not in all files'))
        return NOT_RUN, f'not all of the data can be measured: {what}', ''
    pairs: list[tuple[str, Mapping[str, Any], dict[str, Moments]]] = []
    if facts.info.version == 'v3.0':
        pairs.append(('meta/stats.json', facts.metadata.statistics, facts.scan.moments))
    else:
        for index, given in facts.metadata.episode_statistics.items():
            rows = facts.scan.episodes.get(index)
            if rows is not None:
                where = f'meta/episodes_stats.jsonl, episode {index}'
                pairs.append((where, given, rows.moments))
        absent = set(facts.scan.episodes) - set(facts.metadata.episode_statistics)
        if absent:
            return FAIL, f'meta/episodes_stats.jsonl: lacks episode {min(absent)}', mend
    for where, given, moments in pairs:
        for name in (ACTION, 'observation.state'):
            if name in moments:
                wrong = _statistics_differ(given.get(name), moments[name])
                if wrong:
                    return FAIL, f'{where}: {name}: {wrong}', mend
    return PASS, 'min, max, mean and std of action and observation.state', ''


def _statistics_differ(given: Any, moments: Moments) -> str:
    if not isinstance(given, dict):
        return 'is missing'
    scale = STATISTICS_TOLERANCE * (moments.high - moments.low) + 1e-5
    truths: dict[str, NDArray[np.float64]] = {
        'min': moments.low, 'max': moments.high, 'mean': moments.mean, 'std': moments.std,
    }  # fmt: skip
    for name, truth in truths.items():
        try:
            value = np.asarray(given.get(name), np.float64).reshape(-1)
        except (TypeError, ValueError):
            return f'{name} is {given.get(name)!r}'
        if value.shape != truth.shape:
            return f'{name} has {value.size} dims, the data {truth.size}'
        wrong = np.flatnonzero(~(np.abs(value - truth) <= scale))
        if len(wrong):
            dim = int(wrong[0])
            return f'{name} of dim {dim} is {value[dim]:.6g}, the data say {truth[dim]:.6g}'
    return ''


def _tasks(facts: Facts) -> Verdict:
    problem = facts.metadata.problems.get('tasks')
    mend = 'add the task to the table of tasks, or correct task_index'
    if problem:
        return FAIL, problem, 'restore the table of tasks'
    tasks = facts.metadata.tasks
    if any(not isinstance(text, str) or not text.strip() for text in tasks.values()):
        return FAIL, 'a task has no text', mend
    if 'episodes' in facts.metadata.problems or not knows(facts, 'task_index'):
        return NOT_RUN, 'not every file tells its tasks', ''
    unknown = sorted(facts.scan.task_indices - set(tasks))
    if unknown:
        return FAIL, f'task_index {unknown[0]} is in the data, but not among the tasks', mend
    texts = set(tasks.values())
    for episode in facts.metadata.episodes:
        strange = [text for text in episode.tasks if text not in texts]
        if strange or not episode.tasks:
            what = f'{strange[0]!r} is not among the tasks' if strange else 'has no task'
            return FAIL, f'episode {episode.index}: {what}', mend
    return PASS, f'{len(tasks)} tasks', ''


def _limits(facts: Facts) -> Verdict:
    limits, moments = facts.limits, facts.scan.moments.get(ACTION)
    if moments is None or len(moments.low) != len(limits.names):
        return NOT_RUN, "the actions could not be read as the robot's joints", ''
    for index, name in enumerate(limits.names):
        low, high = limits.lower[index], limits.upper[index]
        if moments.low[index] < low - _ulp(low) or moments.high[index] > high + _ulp(high):
            return FAIL, (
                f'{name}: actions from {moments.low[index]:.4g} to {moments.high[index]:.4g}, its '
                f'limits are {low:.4g} to {high:.4g}'
            ), ('convert the actions to rad or m where they are in degrees or percent; the guard '
                'would clamp or refuse them')  # fmt: skip
    return PASS, f'{len(limits.names)} joints', ''


def _ulp(limit: float) -> float:
    """Return how far a float32 that was clipped to a limit may lie beyond it."""
    return float(np.spacing(np.float32(abs(limit)))) if np.isfinite(limit) else 0.0


CHECKS: dict[str, Callable[[Facts], Verdict]] = {
    'schema': _schema,
    'files': _files,
    'shapes': _shapes,
    'actions_finite': _finite,
    'action_dim': _action_dim,
    'episode_count': _episode_count,
    'indices': indices,
    'timestamps': timestamps,
    'fps': fps,
    'statistics': _statistics,
    'tasks': _tasks,
    'videos': videos,
    'limits': _limits,
}


def _ran(facts: Facts, found: str) -> Verdict:
    if not facts.scan.read:
        return NOT_RUN, 'no data file could be read', ''
    return PASS, found, ''


def _bare(name: str) -> str:
    """Return a joint's name without what LeRobot puts behind it, as in shoulder_pan.pos."""
    return name.removeprefix('main_').removesuffix('.pos')
