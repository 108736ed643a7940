# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The stacks of layers of any family: nearly all of a policy's weights, by their names in a
checkpoint."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from vla_deploy.backends.fused_inputs import Config
from vla_deploy.backends.fused_layers import Expert, Language, StackSpec, Tower, merged
from vla_deploy.backends.parameters import Factor, ParameterSource
from vla_deploy.backends.torch_ops import Heads
from vla_deploy.models.expert import expert_sizes
from vla_deploy.models.smolvla import SmolVLAConfig

PI = 'paligemma_with_expert.'
SMOLVLA = 'vlm_with_expert.'


class Stacks:
    """Vision tower, projector [weight, bias], embedding of tokens, language layers and expert.

    heads and width are the expert's; crossing: those of its layers that read what `cross_weights`
    make of the prefix's keys and values; expert_norm: the name of its last norm.
    """

    def __init__(
        self, config: Config, source: ParameterSource, dtype: torch.dtype,
        mlp_dtype: torch.dtype | None = None,
    ) -> None:
        """Read from `source`, in `dtype`, onto its device. `mlp_dtype`: of the language layers'
        MLPs, see `fused_layers.Layer`."""
        smolvla = isinstance(config, SmolVLAConfig)
        if isinstance(config, SmolVLAConfig):
            text, model = config.text, f'{SMOLVLA}vlm.model.'
            expert, language = f'{SMOLVLA}lm_expert.', f'{model}text_model.'
            tower, projector = f'{model}vision_model.', f'{model}connector.modality_projection.proj'
            hw, spec = (config.image_height, config.image_width), (True, 0.0)
            every, layers = config.self_attn_every_n_layers, config.num_vlm_layers
            crosses = [not (every > 0 and index % every == 0) for index in range(layers)]
            self.width, _ = expert_sizes(text, config.expert_width_multiplier)
            eps, conditioned = text.rms_norm_eps, False
            image_scale = math.sqrt(text.hidden_size)
        else:
            text, model = config.text, f'{PI}paligemma.model.'
            expert, language = f'{PI}gemma_expert.model.', f'{model}language_model.'
            tower = f'{model}vision_tower.vision_model.'
            projector, image_scale = f'{model}multi_modal_projector.linear', 1.0
            hw, spec = (config.image_height, config.image_width), (False, 1.0)
            layers, self.width = text.num_layers, config.expert.hidden_size
            eps, conditioned = config.expert.rms_norm_eps, config.state_in_text
            crosses = [False] * layers
        self.heads = Heads(text.num_attention_heads, text.num_key_value_heads, text.head_dim)
        own = StackSpec(self.heads, text.rms_norm_eps, *spec)
        self.tower = Tower(source, tower, config.vision, hw, dtype)
        scale = Factor(image_scale)
        weight = merged(source, [f'{projector}.weight'], dtype, scale)
        bias = None if smolvla else merged(source, [f'{projector}.bias'], dtype, None)
        self.projector = (weight, bias)
        scale = Factor(math.sqrt(text.hidden_size))
        self.embedding = merged(source, [f'{language}embed_tokens.weight'], dtype, scale)
        self.language = Language(source, f'{language}layers.', layers, own, dtype, mlp_dtype)
        expert_spec = dataclasses.replace(own, eps=eps, conditioned=conditioned)
        self.expert = Expert(source, f'{expert}layers.', crosses, expert_spec, dtype)
        self.crossing = [i for i, cross in enumerate(crosses) if cross]
        self.cross_weights = _cross_weights(source, f'{expert}layers.', crosses, dtype)
        self.expert_norm = f'{expert}norm'


def _cross_weights(
    source: ParameterSource, name: str, crosses: list[bool], dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """Return the transposed projections of keys and of values, [cross layers,in,out]."""
    if not any(crosses):
        return None
    stacks = []
    for which in 'kv':
        names = [
            f'{name}{i}.self_attn.{which}_proj.weight' for i, cross in enumerate(crosses) if cross
        ]
        rows, columns = source.shape(names[0])
        stack = torch.empty((len(names), columns, rows), dtype=dtype, device=source.device)
        for target, projection in zip(stack, names, strict=True):
            source.fill(target.T, projection)
        stacks.append(stack)
    return stacks[0], stacks[1]
