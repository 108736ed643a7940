# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A SmolVLA checkpoint as a contract and a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_deploy.core.contract import (
    ActionSpec,
    Camera,
    Contract,
    ContractError,
    ImageRule,
    StateSpec,
    TimeEmbedding,
    TokenizerSpec,
)
from vla_deploy.export.backbone import CONFIG, backbone_config
from vla_deploy.export.checkpoint import Checkpoint
from vla_deploy.export.processors import ACTION_KEY, STATE_KEY
from vla_deploy.export.source import CheckpointError, need
from vla_deploy.export.weights import load_module
from vla_deploy.models.expert import expert_sizes
from vla_deploy.models.language import TextConfig
from vla_deploy.models.smolvla import CHECKPOINT_PREFIX, UNUSED_KEYS, SmolVLA, SmolVLAConfig
from vla_deploy.models.vision import VisionConfig

_EMPTY_CAMERA = 'observation.images.empty_camera_'
# Options that change the numbers and are not built: key -> the only accepted value.
_FIXED = {
    'n_obs_steps': 1,
    'adapt_to_pi_aloha': False,
    'use_delta_joint_actions_aloha': False,
    'add_image_special_tokens': False,
    'attention_mode': 'cross_attn',
}
_FIXED_BACKBONE = {
    'vision_config': {'hidden_act': 'gelu_pytorch_tanh'},
    'text_config': {'hidden_act': 'silu', 'attention_bias': False, 'mlp_bias': False},
}


def load(checkpoint: Checkpoint) -> tuple[SmolVLA, tuple[str, ...]]:
    """Return the module with the checkpoint's weights, and the dtypes that the file held."""
    config = model_config(checkpoint)
    return load_module(
        lambda: SmolVLA(config), checkpoint.weights, CHECKPOINT_PREFIX, UNUSED_KEYS
    )


def model_config(checkpoint: Checkpoint) -> SmolVLAConfig:
    """Return the sizes of the model; raises CheckpointError, which names the key."""
    config, path = checkpoint.config, checkpoint.path / CONFIG
    _require_fixed(config, path)
    backbone, backbone_path = backbone_config(
        checkpoint.path, need(config, 'vlm_model_name', str, path)
    )
    width, height = _image_size(config, path)
    layers = need(config, 'num_vlm_layers', int, path)
    if need(config, 'num_expert_layers', int, path) not in (-1, 0, layers):
        raise CheckpointError(f'{path}: num_expert_layers other than num_vlm_layers is not built')
    try:
        return SmolVLAConfig(
            vision=_vision(backbone, backbone_path),
            text=_text(backbone, backbone_path),
            scale_factor=need(backbone, 'scale_factor', int, backbone_path),
            num_vlm_layers=layers,
            expert_width_multiplier=need(config, 'expert_width_multiplier', float, path),
            self_attn_every_n_layers=need(config, 'self_attn_every_n_layers', int, path),
            image_height=height,
            image_width=width,
            camera_slots=len(_cameras(checkpoint)) + need(config, 'empty_cameras', int, path),
            max_tokens=checkpoint.processors.tokenization.max_length,
            max_state_dim=need(config, 'max_state_dim', int, path),
            max_action_dim=need(config, 'max_action_dim', int, path),
            chunk_size=need(config, 'chunk_size', int, path),
            num_steps=need(config, 'num_steps', int, path),
            min_period=need(config, 'min_period', float, path),
            max_period=need(config, 'max_period', float, path),
        )
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f'{path}: {error}') from None


def contract(checkpoint: Checkpoint) -> Contract:
    """Return the contract; raises CheckpointError, which names the key."""
    config, path = checkpoint.config, checkpoint.path / CONFIG
    sizes = model_config(checkpoint)
    processors, robot = checkpoint.processors, checkpoint.robot_io
    state = StateSpec(
        joints=robot.state.joints if robot else None,
        units=robot.state.units if robot else None,
        dim=_vector_dim(config, 'input_features', STATE_KEY, path),
        padded_dim=sizes.max_state_dim,
        normalization=processors.state,
    )
    action = ActionSpec(
        joints=robot.action.joints if robot else None,
        units=robot.action.units if robot else None,
        dim=_vector_dim(config, 'output_features', ACTION_KEY, path),
        padded_dim=sizes.max_action_dim,
        normalization=processors.action,
        control_mode=robot.action.control_mode if robot else 'position',
        semantics='absolute',
        first_sample_offset_steps=robot.action.first_sample_offset_steps if robot else 0,
    )
    _require_statistics(checkpoint, state.dim, action.dim)
    expert_width, _ = expert_sizes(sizes.text, sizes.expert_width_multiplier)
    try:
        return Contract(
            schema_version=1,
            family=checkpoint.family,
            cameras=_cameras(checkpoint),
            empty_camera_slots=need(config, 'empty_cameras', int, path),
            image=ImageRule(sizes.image_height, sizes.image_width, 'pad_left_top', -1.0, 1.0),
            state=state,
            action=action,
            chunk_steps=sizes.chunk_size,
            denoise_steps=sizes.num_steps,
            period_s=robot.period_s if robot else None,
            tokenizer=TokenizerSpec(
                sizes.max_tokens,
                processors.tokenization.padding,
                checkpoint.pad_token_id,
                processors.tokenization.newline,
            ),
            time_embedding=TimeEmbedding(expert_width, sizes.min_period, sizes.max_period),
            reserved_inputs=(),
        )
    except ContractError as error:
        raise CheckpointError(f'{path} and robot_io.yaml: {error}') from None


def _require_fixed(config: Mapping[str, Any], path: Path) -> None:
    for key, value in _FIXED.items():
        if need(config, key, type(value), path) != value:
            raise CheckpointError(f'{path}: {key} {config[key]!r} is not supported, only {value!r}')
    if config.get('use_peft'):
        raise CheckpointError(f'{path}: use_peft is set; merge the adapter into the weights first')


def _image_size(config: Mapping[str, Any], path: Path) -> tuple[int, int]:
    size = need(config, 'resize_imgs_with_padding', list, path)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise CheckpointError(f'{path}: resize_imgs_with_padding must be [width, height]')
    return size[0], size[1]


def _vision(backbone: Mapping[str, Any], where: str) -> VisionConfig:
    values = need(backbone, 'vision_config', dict, where)
    _require_backbone(values, 'vision_config', where)
    names = ('hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads')
    sizes = [need(values, name, int, where) for name in (*names, 'image_size', 'patch_size')]
    return VisionConfig(
        *sizes,
        num_channels=values.get('num_channels', 3),
        layer_norm_eps=need(values, 'layer_norm_eps', float, where),
    )


def _text(backbone: Mapping[str, Any], where: str) -> TextConfig:
    values = need(backbone, 'text_config', dict, where)
    _require_backbone(values, 'text_config', where)
    names = ('hidden_size', 'intermediate_size', 'num_attention_heads', 'num_key_value_heads')
    sizes = [need(values, name, int, where) for name in (*names, 'head_dim', 'vocab_size')]
    return TextConfig(*sizes, rms_norm_eps=need(values, 'rms_norm_eps', float, where))


def _require_backbone(values: Mapping[str, Any], part: str, where: str) -> None:
    for key, value in _FIXED_BACKBONE[part].items():
        if values.get(key, value) != value:
            raise CheckpointError(f'{where}: {part}.{key} {values[key]!r} is not supported')


def _cameras(checkpoint: Checkpoint) -> tuple[Camera, ...]:
    path = checkpoint.path / CONFIG
    robot = checkpoint.robot_io
    names = {camera.key: camera.name for camera in (robot.cameras or ())} if robot else {}
    cameras = []
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
        name = names.pop(key, None) or robot_key.rsplit('.', 1)[-1]
        cameras.append(Camera(name, key, shape[1], shape[2]))
    if names:
        raise CheckpointError(f'robot_io.yaml: {path} has no camera {sorted(names)[0]!r}')
    if not cameras:
        raise CheckpointError(f'{path}: input_features names no camera')
    return tuple(cameras)


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
