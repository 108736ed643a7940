# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A pi0 or pi0.5 checkpoint as a contract and a torch module.

config.json names published variants but no sizes, so these come from the shapes of the tensors.
The numbers of heads cannot be seen there: they are the published ones, or come from a file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from vla_deploy.core.contract import Contract
from vla_deploy.export.backbone import CONFIG, load_tokenizer
from vla_deploy.export.checkpoint import Checkpoint
from vla_deploy.export.contracts import camera_slots, make_contract, require_fixed
from vla_deploy.export.layouts import Renaming, pi_names
from vla_deploy.export.source import CheckpointError, need, read_json
from vla_deploy.export.weights import load_module, tensor_shapes
from vla_deploy.models.gemma import GemmaConfig
from vla_deploy.models.pi import EMBEDDING_KEY, UNUSED_KEYS, Pi, PiConfig
from vla_deploy.models.vision import VisionConfig

BEGIN = '<bos>'
TEXT_HEADS, VISION_HEADS = 8, 16
PUBLISHED_WIDTHS = (2048, 1024, 1152)  # language model, expert, vision tower
_FIXED = {'n_obs_steps': 1}
_TEXT = 'paligemma_with_expert.paligemma.model.language_model.'
_EXPERT = 'paligemma_with_expert.gemma_expert.model.'
_VISION = 'paligemma_with_expert.paligemma.model.vision_tower.vision_model.'
_SIZES = {
    'hidden_size': 'hidden_size',
    'intermediate_size': 'intermediate_size',
    'num_hidden_layers': 'num_layers',
    'num_attention_heads': 'num_attention_heads',
    'num_key_value_heads': 'num_key_value_heads',
    'head_dim': 'head_dim',
}
_VISION_SIZES = (
    'hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads',
    'image_size', 'patch_size',
)
Shapes = Mapping[str, tuple[int, ...]]


def load(checkpoint: Checkpoint) -> tuple[Pi, tuple[str, ...]]:
    """Return the module with the checkpoint's weights, and the dtypes that the file held."""
    config = model_config(checkpoint)
    return load_module(
        lambda: Pi(config), checkpoint.weights, _renaming(checkpoint), UNUSED_KEYS
    )


def contract(checkpoint: Checkpoint) -> Contract:
    """Return the contract; raises CheckpointError, which names the key."""
    sizes = model_config(checkpoint)
    prompt = checkpoint.processors.tokenization.prompt
    wanted = 'instruction_and_state' if sizes.state_in_text else 'instruction'
    if prompt != wanted:
        raise CheckpointError(
            f'{checkpoint.path}: {checkpoint.family} takes the prompt {wanted}, but its '
            f'processors make {prompt}'
        )
    _require_bos(checkpoint)
    return make_contract(checkpoint, sizes, 'pad_center', sizes.expert.hidden_size)


def notes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return a line where the numbers of heads are a guess."""
    sizes = model_config(checkpoint)
    widths = (sizes.text.hidden_size, sizes.expert.hidden_size, sizes.vision.hidden_size)
    if checkpoint.dims is not None or widths == PUBLISHED_WIDTHS:
        return ()
    return (
        f'widths {widths} are not the published ones, and no checkpoint says its numbers of '
        f'heads: {TEXT_HEADS} and {VISION_HEADS} (vision) are assumed; pass --dims FILE to say',
    )


def model_config(checkpoint: Checkpoint) -> PiConfig:
    """Return the sizes of the model; raises CheckpointError, which names the key or tensor."""
    config, path = checkpoint.config, checkpoint.path / CONFIG
    require_fixed(config, _FIXED, path)
    stated = config.get('use_relative_actions', False)  # older files lack the key
    if stated is not (checkpoint.processors.relative is not None):
        raise CheckpointError(f'{path}: use_relative_actions is {stated!r}, the processors differ')
    shapes = tensor_shapes(checkpoint.weights, _renaming(checkpoint))
    dims = read_json(checkpoint.dims) if checkpoint.dims else {}
    try:
        vision = _vision(shapes, dims, checkpoint)
        text = _gemma(shapes, _TEXT, dims.get('paligemma', {}).get('text_config', {}), checkpoint)
        expert = _gemma(shapes, _EXPERT, dims.get('gemma_expert', {}), checkpoint)
        if config.get('image_resolution') != [vision.image_size, vision.image_size]:
            raise CheckpointError(
                f'{path}: image_resolution is {config.get("image_resolution")}, but the position '
                f'table is for {[vision.image_size, vision.image_size]}'
            )
        return PiConfig(
            vision=vision,
            text=text,
            expert=expert,
            vocab_size=_shape(shapes, EMBEDDING_KEY, 2, checkpoint)[0],
            state_in_text=checkpoint.family == 'pi05',
            camera_slots=camera_slots(checkpoint),
            max_tokens=checkpoint.processors.tokenization.max_length,
            max_state_dim=need(config, 'max_state_dim', int, path),
            max_action_dim=need(config, 'max_action_dim', int, path),
            chunk_size=need(config, 'chunk_size', int, path),
            num_steps=need(config, 'num_inference_steps', int, path),
            min_period=need(config, 'min_period', float, path),
            max_period=need(config, 'max_period', float, path),
        )
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f'{checkpoint.weights}: {error}') from None


def _require_bos(checkpoint: Checkpoint) -> None:
    """Refuse a tokenizer that does not begin a prompt as PaliGemma's does."""
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    tokenizer.no_padding()  # a tokenizer.json may be saved with either on, serving has its own
    tokenizer.no_truncation()
    if tokenizer.encode('').ids != [tokenizer.token_to_id(BEGIN)]:
        raise CheckpointError(
            f'{checkpoint.tokenizer}: does not begin a prompt with {BEGIN}; '
            "pass --tokenizer DIR, a folder with PaliGemma's tokenizer.json"
        )


def _renaming(checkpoint: Checkpoint) -> Renaming:
    return functools.partial(pi_names, state_in_text=checkpoint.family == 'pi05')


def _shape(shapes: Shapes, name: str, rank: int, checkpoint: Checkpoint) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f'{checkpoint.weights}: lacks model.{name}')
    if len(shapes[name]) != rank:
        raise CheckpointError(
            f'{checkpoint.weights}: model.{name} has shape {list(shapes[name])}, '
            f'not {rank} dimensions'
        )
    return shapes[name]


def _layers(shapes: Shapes, start: str) -> int:
    return len({name[len(start) :].split('.')[0] for name in shapes if name.startswith(start)})


def _gemma(
    shapes: Shapes, start: str, dims: Mapping[str, Any], checkpoint: Checkpoint
) -> GemmaConfig:
    layer = f'{start}layers.0.'
    intermediate, hidden = _shape(shapes, f'{layer}mlp.gate_proj.weight', 2, checkpoint)
    query, _ = _shape(shapes, f'{layer}self_attn.q_proj.weight', 2, checkpoint)
    key, _ = _shape(shapes, f'{layer}self_attn.k_proj.weight', 2, checkpoint)
    heads = _heads(dims, TEXT_HEADS, query, f'{layer}self_attn.q_proj.weight', checkpoint)
    head_dim = query // heads
    if key % head_dim or heads % (key // head_dim):
        raise CheckpointError(
            f'{checkpoint.weights}: model.{layer}self_attn.k_proj.weight has {key} rows, which '
            f'{heads} heads of {head_dim} cannot share; pass --dims FILE with the right heads'
        )
    config = GemmaConfig(
        hidden, intermediate, _layers(shapes, f'{start}layers.'), heads, key // head_dim, head_dim,
        dims.get('rms_norm_eps', 1e-6),
    )
    _require_dims(dims, {key: getattr(config, name) for key, name in _SIZES.items()}, checkpoint)
    return config


def _vision(shapes: Shapes, dims: Mapping[str, Any], checkpoint: Checkpoint) -> VisionConfig:
    values = dims.get('paligemma', {}).get('vision_config', {})
    patches = f'{_VISION}embeddings.patch_embedding.weight'
    hidden, channels, patch, _ = _shape(shapes, patches, 4, checkpoint)
    positions = f'{_VISION}embeddings.position_embedding.weight'
    side = math.isqrt(_shape(shapes, positions, 2, checkpoint)[0])
    intermediate, _ = _shape(shapes, f'{_VISION}encoder.layers.0.mlp.fc1.weight', 2, checkpoint)
    config = VisionConfig(
        hidden,
        intermediate,
        _layers(shapes, f'{_VISION}encoder.layers.'),
        _heads(values, VISION_HEADS, hidden, patches, checkpoint),
        side * patch,
        patch,
        channels,
        values.get('layer_norm_eps', 1e-6),
    )
    _require_dims(values, {name: getattr(config, name) for name in _VISION_SIZES}, checkpoint)
    return config


def _heads(
    dims: Mapping[str, Any], published: int, size: int, name: str, checkpoint: Checkpoint
) -> int:
    heads = dims.get('num_attention_heads', published)
    if not isinstance(heads, int) or heads < 1 or size % heads:
        raise CheckpointError(
            f'{checkpoint.weights}: model.{name} does not divide into {heads!r} heads; '
            'pass --dims FILE with the right num_attention_heads'
        )
    return heads


def _require_dims(
    dims: Mapping[str, Any], sizes: Mapping[str, Any], checkpoint: Checkpoint
) -> None:
    """Refuse a file of sizes that says other ones than the tensors do."""
    for key, size in sizes.items():
        if dims.get(key, size) != size:
            raise CheckpointError(
                f'{checkpoint.dims}: {key} is {dims[key]!r}, but the tensors say {size}'
            )
