# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Whether an episode succeeded, as somebody said: a file in the folder of its bag."""

from __future__ import annotations

import json
from pathlib import Path

from vla_deploy.files import MAX_TEXT_BYTES, read_text, write_bytes
from vla_deploy.trace.bag import Bag, BagError
from vla_deploy.trace.episodes import FAILED, SUCCESS, Episode, read_contents

LABELS = 'labels.json'


def read_labels(folder: Path) -> dict[str, str]:
    """Return session_id -> success or failed; raises BagError for a file that is not ours."""
    path = folder / LABELS
    if not path.is_file():
        return {}
    try:
        labels = json.loads(read_text(path, MAX_TEXT_BYTES))
    except (ValueError, RecursionError) as error:
        raise BagError(f'{path}: cannot be read: {error}') from error
    if not isinstance(labels, dict) or any(v not in (SUCCESS, FAILED) for v in labels.values()):
        raise BagError(f'{path}: must map session ids to {SUCCESS} or {FAILED}')
    return labels


def label(folder: Path, number: int | None, result: str | None) -> Episode:
    """Label an episode of a bag, the only one or that of a number from 0; None takes a label away.

    Raises BagError where there is no such episode, or several and no number.
    """
    if not folder.is_dir():
        raise BagError(f'{folder}: labels go into the folder of a bag: name that')
    episodes = read_contents(Bag(folder)).episodes
    if number is None and len(episodes) != 1:
        raise BagError(f'{folder}: holds {len(episodes)} episodes: give --episode')
    number = number or 0
    if not 0 <= number < len(episodes):
        raise BagError(f'{folder}: holds no episode {number}, only {len(episodes)}, from 0')
    labels = read_labels(folder)
    labels.pop(episodes[number].session_id, None)
    if result is not None:
        labels[episodes[number].session_id] = result
    text = json.dumps(labels, indent=1, sort_keys=True) + '\n'
    write_bytes(folder / LABELS, text.encode('ascii'))
    return episodes[number]
