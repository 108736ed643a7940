# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Names of tensors in older checkpoints, as today's names."""

from __future__ import annotations

from collections.abc import Callable, Collection

from vla_deploy.export.source import CheckpointError
from vla_deploy.models import pi

MODEL = 'model.'
Renaming = Callable[[Collection[str]], dict[str, str]]
# Statistics that older LeRobot kept beside the weights; `old_processors` reads them.
STATISTICS = ('normalize_inputs.', 'normalize_targets.', 'unnormalize_outputs.')
_TIME_MLP = ('time_mlp_in.', 'time_mlp_out.')


def smolvla_names(stored: Collection[str]) -> dict[str, str]:
    """Return {name in the file: today's name} for every tensor but old statistics."""
    return {name: name for name in stored if not name.startswith(STATISTICS)}


def pi_names(stored: Collection[str], state_in_text: bool) -> dict[str, str]:
    """Return {name in the file: today's name} for every tensor but old statistics.

    Older files lack the leading `model.`; their time MLP may have the name that the other family
    gives it; the embedding may be stored only as the head that it is tied to.
    """
    names = {}
    for name in stored:
        if name.startswith(STATISTICS):
            continue
        bare = name.removeprefix(MODEL)
        if state_in_text and bare.startswith(tuple(f'action_{part}' for part in _TIME_MLP)):
            bare = bare.removeprefix('action_')
        elif not state_in_text and bare.startswith(_TIME_MLP):
            bare = f'action_{bare}'
        names[name] = MODEL + bare
    embedding, head = MODEL + pi.EMBEDDING_KEY, MODEL + pi.LM_HEAD_KEY
    if embedding not in names.values():
        names = {name: embedding if now == head else now for name, now in names.items()}
    return names


def require_one_each(names: dict[str, str], where: object) -> None:
    """Refuse a file that holds a tensor under an old and a new name; raises CheckpointError."""
    first: dict[str, str] = {}
    for name, now in names.items():
        if now in first:
            raise CheckpointError(f'{where}: holds both {first[now]} and {name}, which are one')
        first[now] = name
