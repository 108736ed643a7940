# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Processors of checkpoints from before LeRobot wrote them into files of their own.

The statistics lie beside the weights, as `normalize_inputs.buffer_observation_state.mean` and the
like; the rest is in config.json, or was fixed in the family's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vla_deploy.core.contract import Normalization
from vla_deploy.export.layouts import STATISTICS
from vla_deploy.export.processors import (
    ACTION_KEY,
    MODES,
    STATE_KEY,
    Processors,
    Tokenization,
    missing_processors,
    require_valid,
)
from vla_deploy.export.source import CheckpointError, need, unreadable

EPSILON = 1e-8
PALIGEMMA = 'google/paligemma-3b-pt-224'
_PARTS = {
    'state': ('STATE', f'normalize_inputs.buffer_{STATE_KEY.replace(".", "_")}'),
    'action': ('ACTION', f'unnormalize_outputs.buffer_{ACTION_KEY}'),
}


def read_old_processors(
    weights: Path, family: str, config: Mapping[str, Any], config_path: Path
) -> Processors:
    """Read the processors of an older checkpoint; raises CheckpointError."""
    stored = _statistics(weights)
    if not stored:
        raise missing_processors(weights.parent)
    modes = need(config, 'normalization_mapping', dict, config_path)
    if modes.get('VISUAL', 'IDENTITY') != 'IDENTITY':
        raise CheckpointError(
            f'{config_path}: images are normalised with {modes["VISUAL"]}; only IDENTITY is known'
        )
    specs: dict[str, Normalization] = {}
    statistics: dict[str, NDArray[np.float32]] = {}
    for part, (kind, buffer) in _PARTS.items():
        mode = need(modes, kind, str, f'{config_path}: normalization_mapping')
        if mode not in MODES:
            raise CheckpointError(f'{config_path}: {kind} is normalised with {mode}')
        known, wanted = MODES[mode]
        specs[part] = Normalization(known, EPSILON)
        for what in wanted:
            name = f'{buffer}.{what}'
            if name not in stored:
                raise CheckpointError(f'{weights}: mode {mode} needs {name}, which is missing')
            require_valid(name, stored[name], weights)
            statistics[f'{part}.{what}'] = stored[name].reshape(-1)
    tokenization = _tokenization(family, config, config_path)
    return Processors(specs['state'], specs['action'], statistics, tokenization, {}, None, ())


def _tokenization(family: str, config: Mapping[str, Any], path: Path) -> Tokenization:
    length = need(config, 'tokenizer_max_length', int, path)
    if family == 'smolvla':
        name = need(config, 'vlm_model_name', str, path)
        padding = need(config, 'pad_language_to', str, path)
        if padding not in ('max_length', 'longest'):
            raise CheckpointError(f'{path}: pad_language_to {padding!r} is not supported')
        return Tokenization(name, length, padding, 'append_if_missing', 'instruction')
    if family == 'pi05':
        return Tokenization(PALIGEMMA, length, 'max_length', 'none', 'instruction_and_state')
    return Tokenization(PALIGEMMA, length, 'max_length', 'append_if_missing', 'instruction')


def _statistics(weights: Path) -> dict[str, NDArray[np.float32]]:
    try:
        with safe_open(weights, framework='np') as file:
            names = [name for name in list(file.keys()) if name.startswith(STATISTICS)]
            return {name: file.get_tensor(name).astype(np.float32) for name in names}
    except (OSError, SafetensorError) as error:
        raise unreadable(weights, error) from None
