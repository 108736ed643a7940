# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's policy_preprocessor.json and policy_postprocessor.json as plain data.

Every step is either understood or refused by name; a step that is ignored would be a silent
difference between training and serving.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import Normalization
from vla_deploy.export.source import CheckpointError, need, read_arrays, read_json

PREPROCESSOR = 'policy_preprocessor.json'
POSTPROCESSOR = 'policy_postprocessor.json'
STATE_KEY = 'observation.state'
ACTION_KEY = 'action'

# Mode in the checkpoint -> mode in the contract, and the statistics it reads.
MODES = {
    'IDENTITY': ('identity', ()),
    'MEAN_STD': ('mean_std', ('mean', 'std')),
    'MIN_MAX': ('min_max', ('min', 'max')),
    'QUANTILES': ('quantiles', ('q01', 'q99')),
}
_NEW_LINE = ('smolvla_new_line_processor', 'pi0_new_line_processor')
_STATE_IN_TEXT = 'pi05_prepare_state_tokenizer_processor_step'
_RELATIVE, _ABSOLUTE = 'relative_actions_processor', 'absolute_actions_processor'
_DEVICE = 'device_processor'
# Steps that only move data between containers and devices.
_NEUTRAL = ('to_batch_processor', _DEVICE)
# As LeRobot 0.6.1 writes them. It hands any other on to the step, which may then do something else.
_NORMALIZER_KEYS = ('eps', 'features', 'norm_map', 'normalize_observation_keys')
_KEYS: Mapping[str, tuple[str, ...]] = {
    _DEVICE: ('device', 'float_dtype'),
    'rename_observations_processor': ('rename_map',),
    'tokenizer_processor': (
        'max_length', 'padding', 'padding_side', 'task_key', 'tokenizer_name', 'truncation'
    ),
    'normalizer_processor': _NORMALIZER_KEYS,
    'unnormalizer_processor': _NORMALIZER_KEYS,
    _RELATIVE: ('action_names', 'enabled', 'exclude_joints'),
    _ABSOLUTE: ('enabled',),
}
_FLOAT32 = (None, 'float32', 'float')
_TASK = 'task'
_UNDERSTOOD = {
    PREPROCESSOR: (
        'rename_observations_processor',
        *_NEW_LINE,
        _STATE_IN_TEXT,
        'tokenizer_processor',
        _RELATIVE,
        'normalizer_processor',
    ),
    POSTPROCESSOR: ('unnormalizer_processor', _ABSOLUTE),
}


@dataclass(frozen=True)
class Tokenization:
    """What the steps on the text do; `name` is the tokenizer's folder or hub name, `newline` and
    `prompt` as in the contract."""

    name: str
    max_length: int
    padding: str
    newline: str
    prompt: str


@dataclass(frozen=True)
class RelativeActions:
    """Actions are differences to the state, but for those whose name holds one of `excluded`.

    `names` of the action's dimensions, or None: then none is excluded.
    """

    excluded: tuple[str, ...]
    names: tuple[str, ...] | None

    def dims(self, count: int) -> tuple[int, ...]:
        """Return the indices of the dimensions that are differences, of `count`."""
        names = [name.lower() for name in self.names or ()] + [''] * count
        excluded = [part.lower() for part in self.excluded if part]
        return tuple(
            index for index in range(count) if not any(part in names[index] for part in excluded)
        )


@dataclass(frozen=True)
class Processors:
    """Both files. `statistics` holds `state.<what>` and `action.<what>`, float32 [dim].

    `renamed` maps the policy's observation keys to those of the robot. `relative` where actions
    are differences to the state. `files` are the names of the files that all this was read from.
    """

    state: Normalization
    action: Normalization
    statistics: Mapping[str, NDArray[np.float32]]
    tokenization: Tokenization
    renamed: Mapping[str, str]
    relative: RelativeActions | None
    files: tuple[str, ...]


def read_processors(folder: Path) -> Processors:
    """Read both files and the state files they name; raises CheckpointError."""
    before = _steps(folder / PREPROCESSOR)
    after = _steps(folder / POSTPROCESSOR)
    normalizer = _one(before, 'normalizer_processor', folder / PREPROCESSOR)
    unnormalizer = _one(after, 'unnormalizer_processor', folder / POSTPROCESSOR)
    _require_plain_images(normalizer, folder / PREPROCESSOR)
    _require_state_is_normalized(normalizer, folder / PREPROCESSOR)
    state, state_statistics = _normalization(
        folder, PREPROCESSOR, normalizer, 'STATE', STATE_KEY, 'state'
    )
    action, action_statistics = _normalization(
        folder, POSTPROCESSOR, unnormalizer, 'ACTION', ACTION_KEY, 'action'
    )
    with_statistics = ((normalizer, state_statistics), (unnormalizer, action_statistics))
    return Processors(
        state,
        action,
        {**state_statistics, **action_statistics},
        _tokenization(before, folder / PREPROCESSOR),
        _renamed(before, folder / PREPROCESSOR),
        _relative(before, after, folder),
        (
            PREPROCESSOR,
            POSTPROCESSOR,
            *(step['state_file'] for step, statistics in with_statistics if statistics),
        ),
    )


def missing_processors(folder: Path, name: str = PREPROCESSOR) -> CheckpointError:
    """Return the error for a checkpoint without (one of) its files of processors."""
    return CheckpointError(
        f'{folder / name}: is missing; save the policy with a LeRobot that writes processors '
        '(>= 0.4)'
    )


def require_valid(name: str, values: NDArray[np.float32], where: object) -> None:
    """Refuse a statistic that is not finite, or a negative standard deviation."""
    if not np.isfinite(values).all():
        raise CheckpointError(f'{where}: {name} holds NaN or infinity; compute it again')
    if name.endswith('.std') and (values < 0).any():
        raise CheckpointError(f'{where}: {name} is negative')


def _steps(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (registry name, step) of every step that is not neutral."""
    if not path.is_file():
        raise missing_processors(path.parent, path.name)
    steps = []
    for index, step in enumerate(need(read_json(path), 'steps', list, path)):
        if not isinstance(step, dict) or not isinstance(step.get('config'), dict):
            raise CheckpointError(f'{path}: steps[{index}] must be an object with a config')
        name = need(step, 'registry_name', str, f'{path}: steps[{index}]')
        if name in _NEUTRAL:
            _require_known_options(name, step['config'], path)
            continue
        optional = name in (_RELATIVE, _ABSOLUTE)
        if optional and not need(step['config'], 'enabled', bool, f'{path}: {name}'):
            continue
        if name not in _UNDERSTOOD[path.name]:
            raise CheckpointError(f'{path}: step {name!r} is not supported')
        _require_known_options(name, step['config'], path)
        steps.append((name, step))
    return steps


def _require_known_options(name: str, config: Mapping[str, Any], path: Path) -> None:
    """Refuse an option of a step that is not known, or that changes the numbers."""
    for key in config:
        if key not in _KEYS.get(name, ()):
            raise CheckpointError(
                f'{path}: {name}: key {key!r} is not supported; remove it if it changes no number'
            )
    if config.get('float_dtype') not in _FLOAT32:
        raise CheckpointError(
            f'{path}: {name}: float_dtype {config["float_dtype"]!r} rounds images and state, and '
            'is not supported; only null and float32 are'
        )
    if config.get('task_key', _TASK) != _TASK:
        raise CheckpointError(
            f'{path}: {name}: task_key {config["task_key"]!r} is not supported, only {_TASK!r}'
        )


def _one(steps: list[tuple[str, dict[str, Any]]], name: str, path: Path) -> dict[str, Any]:
    found = [step for step_name, step in steps if step_name == name]
    if len(found) != 1:
        raise CheckpointError(f'{path}: needs exactly one {name}, has {len(found)}')
    return found[0]


def _require_plain_images(step: Mapping[str, Any], path: Path) -> None:
    mode = need(step['config'], 'norm_map', dict, path).get('VISUAL', 'IDENTITY')
    if mode != 'IDENTITY':
        raise CheckpointError(f'{path}: images are normalised with {mode}; only IDENTITY is known')


def _require_state_is_normalized(step: Mapping[str, Any], path: Path) -> None:
    """Refuse a normalizer that would pass the state on as it is, whatever its norm_map says.

    For actions LeRobot asks neither of the two keys.
    """
    config, where = step['config'], f'{path}: normalizer_processor'
    if need(config, 'norm_map', dict, path).get('STATE') == 'IDENTITY':
        return
    kind = need(config, 'features', dict, where).get(STATE_KEY)
    if not isinstance(kind, dict) or kind.get('type') != 'STATE':
        raise CheckpointError(
            f'{where}: features names no {STATE_KEY} of type STATE, so that the state is not '
            'normalised, but norm_map says how; add it, or set norm_map.STATE to IDENTITY'
        )
    keys = config.get('normalize_observation_keys')
    if keys is not None and (not isinstance(keys, list) or STATE_KEY not in keys):
        raise CheckpointError(
            f'{where}: normalize_observation_keys {keys!r} lacks {STATE_KEY}, so that the state is '
            'not normalised, but norm_map says how; add it, or set norm_map.STATE to IDENTITY'
        )


def _normalization(
    folder: Path, file: str, step: Mapping[str, Any], kind: str, key: str, part: str
) -> tuple[Normalization, dict[str, NDArray[np.float32]]]:
    path = folder / file
    config = step['config']
    mode = need(need(config, 'norm_map', dict, path), kind, str, path)
    if mode not in MODES:
        raise CheckpointError(f'{path}: {kind} is normalised with {mode}, which is not supported')
    known, wanted = MODES[mode]
    epsilon = need(config, 'eps', float, path)
    if not wanted:
        return Normalization(known, epsilon), {}
    arrays = read_arrays(_state_file(folder, step, path))
    statistics = {}
    for what in wanted:
        if f'{key}.{what}' not in arrays:
            raise CheckpointError(
                f'{path}: mode {mode} needs {key}.{what}, which its state file lacks'
            )
        statistics[f'{part}.{what}'] = arrays[f'{key}.{what}'].reshape(-1)
        require_valid(f'{key}.{what}', arrays[f'{key}.{what}'], path)
    return Normalization(known, epsilon), statistics


def _state_file(folder: Path, step: Mapping[str, Any], path: Path) -> Path:
    name = need(step, 'state_file', str, path)
    if Path(name).name != name:
        raise CheckpointError(f'{path}: state_file {name!r} must be a file name in this folder')
    return folder / name


def _tokenization(steps: list[tuple[str, dict[str, Any]]], path: Path) -> Tokenization:
    step = _one(steps, 'tokenizer_processor', path)
    names = [name for name, _ in steps]
    tokenized, normalized = names.index('tokenizer_processor'), names.index('normalizer_processor')
    newlines = [index for index, name in enumerate(names) if name in _NEW_LINE]
    if any(index > tokenized for index in newlines):
        raise CheckpointError(f'{path}: the newline is appended after the text is tokenized')
    state_in_text = _STATE_IN_TEXT in names
    if state_in_text and not normalized < names.index(_STATE_IN_TEXT) < tokenized:
        raise CheckpointError(
            f'{path}: {_STATE_IN_TEXT} must stand between normalizer and tokenizer'
        )
    if state_in_text and newlines:
        raise CheckpointError(f'{path}: a newline step beside {_STATE_IN_TEXT} is not supported')
    config = step['config']
    padding = need(config, 'padding', str, path)
    if padding not in ('max_length', 'longest'):
        raise CheckpointError(f'{path}: padding {padding!r} is neither max_length nor longest')
    if need(config, 'padding_side', str, path) != 'right' or not need(
        config, 'truncation', bool, path
    ):
        raise CheckpointError(f'{path}: only right padding with truncation is supported')
    return Tokenization(
        need(config, 'tokenizer_name', str, path),
        need(config, 'max_length', int, path),
        padding,
        'append_if_missing' if newlines else 'none',
        'instruction_and_state' if state_in_text else 'instruction',
    )


def _relative(
    before: list[tuple[str, dict[str, Any]]], after: list[tuple[str, dict[str, Any]]], folder: Path
) -> RelativeActions | None:
    """Return what the pair of steps says that makes actions relative and absolute again."""
    names, names_after = [name for name, _ in before], [name for name, _ in after]
    if (_RELATIVE in names) != (_ABSOLUTE in names_after):
        raise CheckpointError(f'{folder}: only one of {_RELATIVE} and {_ABSOLUTE} is enabled')
    if _RELATIVE not in names:
        return None
    path = folder / PREPROCESSOR
    if names.index(_RELATIVE) > names.index('normalizer_processor'):
        raise CheckpointError(f'{path}: {_RELATIVE} must stand before the normalizer')
    if names_after.index(_ABSOLUTE) < names_after.index('unnormalizer_processor'):
        raise CheckpointError(
            f'{folder / POSTPROCESSOR}: {_ABSOLUTE} must stand behind the unnormalizer'
        )
    config = _one(before, _RELATIVE, path)['config']
    excluded = need(config, 'exclude_joints', list, f'{path}: {_RELATIVE}')
    action_names = config.get('action_names')
    if not all(isinstance(name, str) for name in (*excluded, *(action_names or ()))):
        raise CheckpointError(f'{path}: {_RELATIVE}: exclude_joints and action_names must be names')
    return RelativeActions(
        tuple(excluded), None if action_names is None else tuple(action_names)
    )


def _renamed(steps: list[tuple[str, dict[str, Any]]], path: Path) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for name, step in steps:
        if name == 'rename_observations_processor':
            pairs = need(step['config'], 'rename_map', dict, path)
            renamed.update({policy_key: robot_key for robot_key, policy_key in pairs.items()})
    return renamed
