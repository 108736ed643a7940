# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The vision-language backbone that a checkpoint refers to by name: its sizes, its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vla_deploy.export.source import CheckpointError, read_json

CONFIG = 'config.json'
TOKENIZER = 'tokenizer.json'
BACKBONE = 'backbone'

# Published sizes, for checkpoints that hold only the backbone's name.
KNOWN_BACKBONES: Mapping[str, Mapping[str, Any]] = {
    'HuggingFaceTB/SmolVLM2-500M-Video-Instruct': {
        'scale_factor': 4,
        'vision_config': {
            'hidden_size': 768,
            'intermediate_size': 3072,
            'num_hidden_layers': 12,
            'num_attention_heads': 12,
            'image_size': 512,
            'patch_size': 16,
            'num_channels': 3,
            'layer_norm_eps': 1e-6,
            'hidden_act': 'gelu_pytorch_tanh',
        },
        'text_config': {
            'hidden_size': 960,
            'intermediate_size': 2560,
            'num_attention_heads': 15,
            'num_key_value_heads': 5,
            'head_dim': 64,
            'vocab_size': 49280,
            'rms_norm_eps': 1e-5,
            'hidden_act': 'silu',
            'attention_bias': False,
            'mlp_bias': False,
        },
    },
}


def backbone_folder(checkpoint: Path, name: str) -> Path | None:
    """Return the folder that `name` stands for: in or beside the checkpoint, or absolute."""
    for folder in (checkpoint / name, checkpoint.parent / name):
        if (folder / CONFIG).is_file():
            return folder
    return None


def backbone_config(checkpoint: Path, name: str) -> tuple[Mapping[str, Any], str]:
    """Return the backbone's configuration and where it comes from; raises CheckpointError."""
    folder = backbone_folder(checkpoint, name)
    if folder is not None:
        return read_json(folder / CONFIG), str(folder / CONFIG)
    if name in KNOWN_BACKBONES:
        return KNOWN_BACKBONES[name], f'table of known backbones, {name}'
    raise CheckpointError(
        f'{checkpoint / CONFIG}: backbone {name!r} is not known; put its config.json into '
        f'{checkpoint / name}'
    )


def find_tokenizer(checkpoint: Path, name: str, given: Path | None) -> Path:
    """Return the path of tokenizer.json: from `given` (folder or file), or near the checkpoint."""
    if given is not None:
        path = given / TOKENIZER if given.is_dir() else given
        if not path.is_file():
            raise CheckpointError(f'{path}: is missing; --tokenizer wants a folder with it')
        return path
    near = (checkpoint / BACKBONE, checkpoint.parent / BACKBONE)
    for folder in (checkpoint, backbone_folder(checkpoint, name), *near):
        if folder is not None and (folder / TOKENIZER).is_file():
            return folder / TOKENIZER
    raise CheckpointError(
        f'{checkpoint}: has no tokenizer ({name!r} is not in it); '
        'pass --tokenizer DIR, a folder with tokenizer.json'
    )


def load_tokenizer(path: Path) -> Tokenizer:
    """Load tokenizer.json; raises CheckpointError."""
    try:
        return Tokenizer.from_str(path.read_text(encoding='utf-8'))
    except Exception as error:  # noqa: BLE001 - the library raises bare Exception
        raise CheckpointError(f'{path}: is not a tokenizer: {error}') from None


def pad_token_id(path: Path, tokenizer: Tokenizer) -> int:
    """Return the id that pads text: of tokenizer_config.json's pad_token, else tokenizer.json's."""
    config_path = path.parent / 'tokenizer_config.json'
    if config_path.is_file():
        token = read_json(config_path).get('pad_token')
        text = token.get('content') if isinstance(token, dict) else token
        found = tokenizer.token_to_id(text) if isinstance(text, str) else None
        if found is not None:
            return int(found)
        if text is not None:
            raise CheckpointError(f'{config_path}: pad_token {text!r} is not in {path.name}')
    if tokenizer.padding is not None:
        return int(tokenizer.padding['pad_id'])
    raise CheckpointError(
        f'{path}: names no padding token; put tokenizer_config.json with pad_token beside it'
    )
