# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A contract out of what every family of checkpoints says in the same way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_deploy.core.contract import (
    SCHEMA_VERSION,
    ActionSpec,
    Camera,
    Contract,
    ContractError,
    ImageRule,
    StateSpec,
    TimeEmbedding,
    TokenizerSpec,
)
from vla_deploy.export.backbone import CONFIG
from vla_deploy.export.checkpoint import Checkpoint
from vla_deploy.export.processors import ACTION_KEY, STATE_KEY
from vla_deploy.export.robot_io import FILE_NAME as ROBOT_IO
from vla_deploy.export.source import CheckpointError, need
from vla_deploy.models.pi import PiConfig
from vla_deploy.models.smolvla import SmolVLAConfig

_EMPTY_CAMERA = 'observation.images.empty_camera_'
# What ROS takes as the end of a topic's name.
_TOPIC = re.compile(r'[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*')


def make_contract(
    checkpoint: Checkpoint,
    sizes: SmolVLAConfig | PiConfig,
    placement: str,
    expert_width: int,
) -> Contract:
    """Return the contract; raises CheckpointError, which names the key.

    `placement` is where the family's resize puts the padding.
    """
    config, path = checkpoint.config, checkpoint.path / CONFIG
    processors, robot = checkpoint.processors, checkpoint.robot_io
    state = StateSpec(
        joints=robot.state.joints if robot else None,
        units=robot.state.units if robot else None,
        dim=_vector_dim(config, 'input_features', STATE_KEY, path),
        padded_dim=sizes.max_state_dim,
        normalization=processors.state,
    )
    action_dim = _vector_dim(config, 'output_features', ACTION_KEY, path)
    delta_dims = processors.relative.dims(action_dim) if processors.relative else ()
    action = ActionSpec(
        joints=robot.action.joints if robot else None,
        units=robot.action.units if robot else None,
        dim=action_dim,
        padded_dim=sizes.max_action_dim,
        normalization=processors.action,
        control_mode=robot.action.control_mode if robot else 'position',
        semantics='delta' if delta_dims else 'absolute',
        delta_dims=delta_dims,
        first_sample_offset_steps=robot.action.first_sample_offset_steps if robot else 0,
    )
    _require_statistics(checkpoint, state.dim, action.dim)
    text = processors.tokenization
    try:
        return Contract(
            schema_version=SCHEMA_VERSION,
            family=checkpoint.family,
            cameras=cameras(checkpoint),
            empty_camera_slots=need(config, 'empty_cameras', int, path),
            image=ImageRule(sizes.image_height, sizes.image_width, placement, -1.0, 1.0),
            state=state,
            action=action,
            chunk_steps=sizes.chunk_size,
            denoise_steps=sizes.num_steps,
            period_s=robot.period_s if robot else None,
            tokenizer=TokenizerSpec(
                sizes.max_tokens, text.padding, checkpoint.pad_token_id, text.newline, text.prompt
            ),
            time_embedding=TimeEmbedding(expert_width, sizes.min_period, sizes.max_period),
            reserved_inputs=(),
        )
    except ContractError as error:
        raise CheckpointError(f'{path} and robot_io.yaml: {error}') from None


def camera_slots(checkpoint: Checkpoint) -> int:
    """Return how many images the model takes; raises CheckpointError."""
    empty = need(checkpoint.config, 'empty_cameras', int, checkpoint.path / CONFIG)
    return len(cameras(checkpoint)) + empty


def cameras(checkpoint: Checkpoint) -> tuple[Camera, ...]:
    """Return the real cameras in the checkpoint's order; raises CheckpointError."""
    path = checkpoint.path / CONFIG
    robot = checkpoint.robot_io
    names = {camera.key: camera.name for camera in (robot.cameras or ())} if robot else {}
    found = []
    features = need(checkpoint.config, 'input_features', dict, path)
    for key, feature in features.items():
        if need(feature, 'type', str, f'{path}: {key}') != 'VISUAL':
            continue
        if key.startswith(_EMPTY_CAMERA):
            continue
        shape = need(feature, 'shape', list, f'{path}: {key}')
        if len(shape) != 3 or shape[0] != 3:
            raise CheckpointError(f'{path}: {key} has shape {shape}, not [3, height, width]')
        robot_key = checkpoint.processors.renamed.get(key, key)
        given = names.pop(key, None)
        name = given or robot_key.rsplit('.', 1)[-1]
        _require_topic(name, key, checkpoint.files[ROBOT_IO] if given else path)
        found.append(Camera(name, key, shape[1], shape[2]))
    if names:
        raise CheckpointError(f'robot_io.yaml: {path} has no camera {sorted(names)[0]!r}')
    if not found:
        raise CheckpointError(f'{path}: input_features names no camera')
    return tuple(found)


def _require_topic(name: str, key: str, where: Path) -> None:
    """Refuse a camera that could not be heard; inference would only find out at configure."""
    if not _TOPIC.fullmatch(name):
        raise CheckpointError(
            f'{where}: camera {key} is called {name!r}, but ROS takes no topic image/{name}: only '
            f'letters, digits and _, and no digit first; name it in {ROBOT_IO}, cameras: '
            f'[{{key: {key}, name: NAME}}]'
        )


def require_fixed(config: Mapping[str, Any], fixed: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration with an option that changes the numbers and is not built."""
    for key, value in fixed.items():
        if need(config, key, type(value), path) != value:
            raise CheckpointError(f'{path}: {key} {config[key]!r} is not supported, only {value!r}')
    if config.get('use_peft'):
        raise CheckpointError(f'{path}: use_peft is set; merge the adapter into the weights first')


def _vector_dim(config: Mapping[str, Any], part: str, key: str, path: Path) -> int:
    feature = need(need(config, part, dict, path), key, dict, f'{path}: {part}')
    shape = need(feature, 'shape', list, f'{path}: {key}')
    if len(shape) != 1 or not isinstance(shape[0], int):
        raise CheckpointError(f'{path}: {key} has shape {shape}, not [dim]')
    return shape[0]


def _require_statistics(checkpoint: Checkpoint, state_dim: int, action_dim: int) -> None:
    for name, values in checkpoint.processors.statistics.items():
        dim = state_dim if name.startswith('state.') else action_dim
        if values.shape != (dim,):
            raise CheckpointError(
                f'{checkpoint.path}: statistics {name} have {values.size} elements, '
                f'but config.json says {dim}'
            )
