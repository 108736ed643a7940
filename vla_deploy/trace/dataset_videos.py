# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The check of pictures: every video and every image decodes, has the declared size, and holds a
frame where LeRobot looks for one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.trace.dataset import Episode
from vla_deploy.trace.dataset_facts import FAIL, FPS_TOLERANCE_S, NOT_RUN, PASS, Facts, Verdict
from vla_deploy.trace.dataset_pictures import (
    VideoError,
    another_size,
    broken_picture,
    declared_size,
    decoded_video,
)

_Shown = list[tuple[Episode, str]]  # episodes with the camera of which a file is
_COPY = 'copy the video again, or delete its episodes'
_SIZE = 'correct the shape in meta/info.json, or write the pictures anew'
_SPAN = ('correct from_timestamp and to_timestamp in meta/episodes, or encode the video anew: '
         'LeRobot finds the frames by them')  # fmt: skip


def videos(facts: Facts) -> Verdict:
    """Check every video and every image of a data file."""
    if 'episodes' in facts.metadata.problems:
        return NOT_RUN, 'the table of the episodes cannot be read', ''
    shown: dict[str, _Shown] = {}
    for episode in sorted(facts.metadata.episodes, key=lambda e: e.index):
        for camera, file in episode.videos.items():
            shown.setdefault(file, []).append((episode, camera))
    for file, parts in shown.items():
        problem, mend = _video(facts, file, parts)
        if problem:
            return FAIL, f'{file}: {problem}', mend
    pictures = [(file, name) for file in facts.scan.read for name in facts.info.pictures
                if name not in facts.scan.missing_columns.get(file, ())]  # fmt: skip
    for file, name in pictures:
        size = declared_size(facts.info.features[name])
        problem = broken_picture(facts.root / file, name, size)
        if problem:
            mend = f'record the episode again, delete it, or {_SIZE}'
            return FAIL, f'{file}: {name}: {problem}', mend
    if facts.info.pictures and not pictures:
        return NOT_RUN, 'no image could be read', ''
    what = [f'{len(shown)} files, each frame there'] if shown else []
    what += [f'images in {len(facts.scan.read)} data files'] if pictures else []
    return PASS, ', '.join(what) or 'no videos', ''


def _video(facts: Facts, file: str, parts: _Shown) -> tuple[str, str]:
    """Return what is wrong with a video, and how to mend it; empty: nothing."""
    if not (facts.root / file).is_file():
        return 'is not there', _COPY
    try:
        video = decoded_video(facts.root / file)
    except VideoError as error:
        return str(error), _COPY
    needed = sum(episode.length for episode, _ in parts)
    if len(video.times) < needed:
        return f'has {len(video.times)} frames, its episodes need {needed}', _COPY
    for camera in dict.fromkeys(camera for _, camera in parts):
        problem = another_size(video.size, declared_size(facts.info.features[camera]))
        if problem:
            return problem, _SIZE
        here = [episode for episode, name in parts if name == camera]
        problem = _misplaced(facts, here, camera, np.sort(video.times))
        if problem:
            return problem, _SPAN
    return '', ''


def _misplaced(
    facts: Facts, episodes: list[Episode], camera: str, shown_s: NDArray[np.float64]
) -> str:
    """Return which episode of a video is not where the table says; `shown_s`: when its frames
    are, in order."""
    before, most_s = -np.inf, 2.0 / facts.info.fps + FPS_TOLERANCE_S
    for episode in episodes:
        begin_s, end_s = episode.spans.get(camera, (0.0, None))
        wanted = begin_s + _moments(facts, episode)
        if not len(wanted):
            continue
        away = _distances(wanted, shown_s)
        if not (away <= FPS_TOLERANCE_S).all():
            row = int(np.flatnonzero(~(away <= FPS_TOLERANCE_S))[0])
            return (f'frame {row} of episode {episode.index} is looked for at {wanted[row]:.4f} s, '
                    f'the nearest one is {away[row]:.4f} s away')  # fmt: skip
        if wanted[0] <= before:
            return (f'episode {episode.index} begins at {wanted[0]:.4f} s, within or before the '
                    'one that precedes it')  # fmt: skip
        before = wanted[-1]
        if end_s is not None and not 0.0 < end_s - before <= most_s:
            return (f'episode {episode.index} is said to end at {end_s:.4f} s, but its last frame '
                    f'begins at {before:.4f} s')  # fmt: skip
    return ''


def _moments(facts: Facts, episode: Episode) -> NDArray[np.float64]:
    """Return when the frames of an episode are, from its begin, in order: as its rows say, for
    whether these are right is another check's matter; else as the rate has it."""
    rows = facts.scan.episodes.get(episode.index)
    if rows is None or len(rows.times) < episode.length or not np.isfinite(rows.times).all():
        return np.arange(episode.length) / facts.info.fps
    times = np.sort(rows.times)[: episode.length]
    return times - times[:1]


def _distances(wanted: NDArray[np.float64], shown_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the nearest frame is from each moment [s]."""
    after = np.clip(np.searchsorted(shown_s, wanted), 1, max(1, len(shown_s) - 1))
    near = shown_s[np.stack([after - 1, np.minimum(after, len(shown_s) - 1)])]
    return np.abs(near - wanted).min(0)
