# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The checks of what numbers and places the rows of a data set in time: LeRobot finds a frame, its
episode and its pictures by them alone."""

from __future__ import annotations

import numpy as np

from vla_deploy.trace.dataset import Episode
from vla_deploy.trace.dataset_facts import (
    FAIL,
    FPS_TOLERANCE_S,
    NOT_RUN,
    PASS,
    Facts,
    Verdict,
    knows,
)
from vla_deploy.trace.dataset_scan import EPISODE, FRAME, INDEX, TIMESTAMP, EpisodeRows


def indices(facts: Facts) -> Verdict:
    """Check that `frame_index` counts from 0 within each episode and `index` over the data set, in
    the order of its files, and that the table of the episodes says the same."""
    problems = 'episodes' in facts.metadata.problems or facts.scan.unreadable
    if problems or not facts.scan.episodes or not knows(facts, INDEX, FRAME, EPISODE):
        return NOT_RUN, 'not every file tells its indices and episodes', ''
    mend = ('write frame_index from 0 within each episode, and index from 0 over all rows, in the '
            'order of the files')  # fmt: skip
    for number, rows in facts.scan.episodes.items():
        wrong = np.flatnonzero(rows.frames != np.arange(rows.rows))
        if len(wrong):
            return FAIL, (f'episode {number} in {rows.file}: frame_index of its row {wrong[0]} is '
                          f'{rows.frames[wrong[0]]:.15g}'), mend  # fmt: skip
    before = 0
    for file, values in sorted(facts.scan.indices.items()):
        wrong = np.flatnonzero(values != before + np.arange(len(values)))
        if len(wrong):
            return FAIL, (f'{file}: index of row {wrong[0]} is {values[wrong[0]]:.15g}, but '
                          f'{before + wrong[0]} rows come before it'), mend  # fmt: skip
        before += len(values)
    misplaced = _misplaced(facts.metadata.episodes)
    if misplaced:
        return FAIL, f'meta/episodes: {misplaced}', (
            'correct dataset_from_index and dataset_to_index: the lengths of the episodes, added up'
        )
    return PASS, f'{before} rows', ''


def _misplaced(episodes: list[Episode]) -> str:
    """Return which episode's rows are not those that follow the episodes before it."""
    before = 0
    for episode in sorted(episodes, key=lambda e: e.index):
        here = before, before + episode.length
        if episode.rows not in (None, here):
            return (f'episode {episode.index} is said to be the rows from {episode.rows[0]} to '
                    f'{episode.rows[1]}, but is those from {here[0]} to {here[1]}')  # fmt: skip
        before = here[1]
    return ''


def timestamps(facts: Facts) -> Verdict:
    """Check that they rise within each episode."""
    if not facts.scan.episodes or not knows(facts, TIMESTAMP, EPISODE):
        return NOT_RUN, 'not every file tells episodes and timestamps', ''
    for index, rows in facts.scan.episodes.items():
        if not rows.monotonic:
            return FAIL, f'episode {index} in {rows.file}: timestamps do not rise', (
                'sort its frames, or write timestamp = frame_index / fps'
            )
    return PASS, f'{len(facts.scan.episodes)} episodes', ''


def fps(facts: Facts) -> Verdict:
    """Check that each frame is where its number and the rate put it, and so one period apart."""
    if not facts.scan.episodes or not knows(facts, TIMESTAMP, EPISODE):
        return NOT_RUN, 'not every file tells episodes and timestamps', ''
    period_s = 1.0 / facts.info.fps
    for index, rows in facts.scan.episodes.items():
        if rows.monotonic and rows.rows > 1 and abs(rows.worst_gap_s - period_s) > FPS_TOLERANCE_S:
            return FAIL, (
                f'episode {index} in {rows.file}: {rows.worst_gap_s:.4f} s between two frames, '
                f'but {facts.info.fps:g} fps are {period_s:.4f} s'
            ), 'correct fps in meta/info.json, or resample the episode'  # fmt: skip
        strayed = _strayed(rows, facts.info.fps)
        if rows.monotonic and strayed:
            return FAIL, f'episode {index} in {rows.file}: {strayed}', (
                'write timestamp = frame_index / fps, from 0 in each episode'
            )
    return PASS, f'{facts.info.fps:g} fps', ''


def _strayed(rows: EpisodeRows, fps: float) -> str:
    """Return which frame of an episode is the first that lies too far from its place."""
    grid = np.arange(rows.rows) / fps
    # a float32 holds a time after an hour no better than to its own spacing
    most_s = FPS_TOLERANCE_S + np.spacing(grid.astype(np.float32))
    strayed = np.flatnonzero(np.abs(rows.times - grid) > most_s)
    if not len(strayed):
        return ''
    row = strayed[0]
    return f'frame {row} is at {rows.times[row]:.4f} s, its place is {grid[row]:.4f} s'
