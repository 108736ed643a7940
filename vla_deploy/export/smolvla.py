# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A SmolVLA checkpoint as a contract and a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_deploy.core.contract import Contract
from vla_deploy.export.backbone import CONFIG, backbone_config
from vla_deploy.export.checkpoint import Checkpoint
from vla_deploy.export.contracts import camera_slots, make_contract, require_fixed
from vla_deploy.export.layouts import smolvla_names
from vla_deploy.export.source import CheckpointError, need
from vla_deploy.export.weights import load_module
from vla_deploy.models.expert import expert_sizes
from vla_deploy.models.language import TextConfig
from vla_deploy.models.smolvla import UNUSED_KEYS, SmolVLA, SmolVLAConfig
from vla_deploy.models.vision import VisionConfig

# Options that change the numbers and are not built: key -> the only accepted value.
_FIXED = {
    'n_obs_steps': 1,
    'adapt_to_pi_aloha': False,
    'use_delta_joint_actions_aloha': False,
    'add_image_special_tokens': False,
    'attention_mode': 'cross_attn',
}
_FIXED_BACKBONE: dict[str, dict[str, Any]] = {
    'vision_config': {'hidden_act': 'gelu_pytorch_tanh'},
    'text_config': {'hidden_act': 'silu', 'attention_bias': False, 'mlp_bias': False},
}


def load(checkpoint: Checkpoint) -> tuple[SmolVLA, tuple[str, ...]]:
    """Return the module with the checkpoint's weights, and the dtypes that the file held."""
    config = model_config(checkpoint)
    return load_module(
        lambda: SmolVLA(config), checkpoint.weights, smolvla_names, UNUSED_KEYS
    )


def model_config(checkpoint: Checkpoint) -> SmolVLAConfig:
    """Return the sizes of the model; raises CheckpointError, which names the key."""
    config, path = checkpoint.config, checkpoint.path / CONFIG
    require_fixed(config, _FIXED, path)
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
            camera_slots=camera_slots(checkpoint),
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
    sizes = model_config(checkpoint)
    expert_width, _ = expert_sizes(sizes.text, sizes.expert_width_multiplier)
    return make_contract(checkpoint, sizes, 'pad_left_top', expert_width)


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
