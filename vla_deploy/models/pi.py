# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""pi0 and pi0.5: PaliGemma, and a narrow Gemma as flow-matching action expert.

The prefix (image tokens, text tokens) becomes keys and values once a chunk; each Euler step runs
the expert over the noisy actions, which see the prefix and one another. pi0 has a state token
before the actions and mixes the time into them; it sees neither the actions nor the time, so that
its keys and values are part of the prefix here. pi0.5 has the state in its text and the time in
the expert's norms. Names below `Pi` equal those in a LeRobot checkpoint without its leading
`model.`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_deploy.models.flow import FlowModel
from vla_deploy.models.gemma import GemmaConfig, GemmaStack, GemmaText, gemma_rope_tables
from vla_deploy.models.language import attend, rotate
from vla_deploy.models.vision import VisionConfig, VisionTower

EMBEDDING_KEY = 'paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight'
LM_HEAD_KEY = 'paligemma_with_expert.paligemma.lm_head.weight'
UNUSED_KEYS = (LM_HEAD_KEY, 'paligemma_with_expert.gemma_expert.lm_head.weight')


@dataclass(frozen=True)
class PiConfig:
    """Everything the graph's shapes and constants depend on.

    `state_in_text` makes it pi0.5: no state token, and the time in the expert's norms.
    """

    vision: VisionConfig
    text: GemmaConfig
    expert: GemmaConfig
    vocab_size: int
    state_in_text: bool
    camera_slots: int
    max_tokens: int
    max_state_dim: int
    max_action_dim: int
    chunk_size: int
    num_steps: int
    min_period: float = 4e-3
    max_period: float = 4.0

    def __post_init__(self) -> None:
        """Raise ValueError, naming the sizes, where expert and language model do not fit."""
        for name in ('num_layers', 'num_attention_heads', 'num_key_value_heads', 'head_dim'):
            ours, theirs = getattr(self.expert, name), getattr(self.text, name)
            if ours != theirs:
                raise ValueError(f'{name} is {ours} in the expert, {theirs} in the language model')

    @property
    def image_height(self) -> int:
        """Height of an image in pixels: the one that the position table was made for."""
        return self.vision.image_size

    @property
    def image_width(self) -> int:
        """Width of an image in pixels."""
        return self.vision.image_size

    @property
    def tokens_per_image(self) -> int:
        """Image tokens that enter the language model for one camera."""
        return (self.vision.image_size // self.vision.patch_size) ** 2

    @property
    def prefix_length(self) -> int:
        """Tokens that the actions see besides themselves."""
        state = 0 if self.state_in_text else 1
        return self.camera_slots * self.tokens_per_image + self.max_tokens + state

    @property
    def kv_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of a prefix's keys and of its values for one observation."""
        text = self.text
        return (
            text.num_layers, 1, self.prefix_length, text.num_key_value_heads, text.head_dim
        )


class _Projector(nn.Module):
    def __init__(self, vision_size: int, text_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(vision_size, text_size)


class _VisionModel(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vision_model = VisionTower(config, (config.image_size, config.image_size))


class _PaliGemmaParts(nn.Module):
    def __init__(self, config: PiConfig) -> None:
        super().__init__()
        self.vision_tower = _VisionModel(config.vision)
        self.multi_modal_projector = _Projector(
            config.vision.hidden_size, config.text.hidden_size
        )
        self.language_model = GemmaText(config.text, config.vocab_size)


class _PaliGemma(nn.Module):
    def __init__(self, config: PiConfig) -> None:
        super().__init__()
        self.model = _PaliGemmaParts(config)


class _GemmaExpert(nn.Module):
    def __init__(self, config: PiConfig) -> None:
        super().__init__()
        self.model = GemmaStack(config.expert, conditioned=config.state_in_text)


class _PaliGemmaWithExpert(nn.Module):
    def __init__(self, config: PiConfig) -> None:
        super().__init__()
        self.paligemma = _PaliGemma(config)
        self.gemma_expert = _GemmaExpert(config)


@dataclass
class PiPrefix:
    """What the prefix leaves behind: key and value [layers,B,P,kv_heads,head_dim], keys rotated,
    pi0's state token last; mask bool [B,P]."""

    key: Tensor
    value: Tensor
    mask: Tensor


class Pi(FlowModel):
    """The policy without its processors: model-space tensors in, model-space velocities out."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: PiConfig) -> None:
        super().__init__()
        self.config = config
        self.paligemma_with_expert = _PaliGemmaWithExpert(config)
        width = config.expert.hidden_size
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.action_out_proj = nn.Linear(width, config.max_action_dim)
        if config.state_in_text:
            self.time_mlp_in = nn.Linear(width, width)
            self.time_mlp_out = nn.Linear(width, width)
        else:
            self.state_proj = nn.Linear(config.max_state_dim, width)
            self.action_time_mlp_in = nn.Linear(2 * width, width)
            self.action_time_mlp_out = nn.Linear(width, width)
        cosine, sine = gemma_rope_tables(
            config.prefix_length + config.chunk_size, config.text.head_dim
        )
        self.register_buffer('cosine', cosine, persistent=False)
        self.register_buffer('sine', sine, persistent=False)
        self.keep_times(width, config.num_steps, config.min_period, config.max_period)

    @property
    def parts(self) -> _PaliGemmaParts:
        """The vision tower, the projector and the text model."""
        return self.paligemma_with_expert.paligemma.model

    @property
    def expert(self) -> GemmaStack:
        """The action expert."""
        return self.paligemma_with_expert.gemma_expert.model

    def embed_images(self, images: Tensor) -> Tensor:
        """Map images [B,slots,3,H,W] in [-1,1] to image tokens [B,slots*tokens,hidden].

        All cameras go through the tower in one call.
        """
        features = self.parts.vision_tower.vision_model(images.flatten(0, 1))
        tokens = self.parts.multi_modal_projector.linear(features)
        return tokens.reshape(images.shape[0], -1, tokens.shape[-1])

    def embed_prefix(
        self, images: Tensor, image_mask: Tensor, tokens: Tensor, token_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Join image tokens and text.

        images [B,slots,3,H,W], image_mask bool [B,slots], tokens int64 [B,T], token_mask bool
        [B,T]. Returns embeddings [B,slots*tokens+T,hidden] and their mask. Only the text is
        scaled by the square root of the width.
        """
        text = self.parts.language_model.embed_tokens(tokens)
        embedded = torch.cat((self.embed_images(images), text * math.sqrt(text.shape[-1])), dim=1)
        per_image = image_mask.repeat_interleave(self.config.tokens_per_image, dim=1)
        return embedded, torch.cat((per_image, token_mask), dim=1)

    def language_keys_values(self, hidden: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Run the text layers over the prefix [B,P,hidden] with mask bool [B,P].

        Every token sees every other. Returns each layer's rotated keys and its values,
        [B,P,kv_heads,head_dim]; of the last layer only these are computed.
        """
        allowed = mask[:, None, :] & mask[:, :, None]
        turn = self._turn((mask.long().cumsum(1) - 1).clamp(min=0))
        layers = self.parts.language_model.layers
        cache = []
        for index, layer in enumerate(layers):
            normed, gate = layer.input_layernorm(hidden, None)
            key, value = layer.self_attn.key_value(normed)
            key = rotate(key, *turn)
            cache.append((key, value))
            if index + 1 < len(layers):
                query = rotate(layer.self_attn.query(normed), *turn)
                hidden = layer.finish(hidden, attend(query, key, value, allowed), gate, None)
        return cache

    def prefix(
        self,
        images: Tensor,
        image_mask: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        state: Tensor,
    ) -> PiPrefix:
        """Make the prefix; shapes as in `embed_prefix`, state [B,max_state_dim].

        pi0.5 does not read `state`: its text holds it.
        """
        embedded, mask = self.embed_prefix(images, image_mask, tokens, token_mask)
        cache = self.language_keys_values(embedded, mask)
        key = torch.stack([k for k, _ in cache])
        value = torch.stack([v for _, v in cache])
        if self.config.state_in_text:
            return PiPrefix(key, value, mask)
        return self._with_state_token(PiPrefix(key, value, mask), state)

    def velocity(
        self, key: Tensor, value: Tensor, prefix_mask: Tensor, x: Tensor, time_emb: Tensor
    ) -> Tensor:
        """As FlowModel.velocity."""
        actions = self.action_in_proj(x)
        condition = None
        if self.config.state_in_text:
            condition = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(time_emb))))
        else:
            time = time_emb[:, None, :].expand_as(actions)
            fused = F.silu(self.action_time_mlp_in(torch.cat((actions, time), dim=2)))
            actions = self.action_time_mlp_out(fused)
        hidden, _ = self._run_expert(actions, key, value, prefix_mask, condition)
        normed, _ = self.expert.norm(hidden, condition)
        return self.action_out_proj(normed)

    def _with_state_token(self, prefix: PiPrefix, state: Tensor) -> PiPrefix:
        token = self.state_proj(state)[:, None]
        _, cache = self._run_expert(token, prefix.key, prefix.value, prefix.mask, None)
        return PiPrefix(
            torch.cat((prefix.key, torch.stack([k for k, _ in cache])), dim=2),
            torch.cat((prefix.value, torch.stack([v for _, v in cache])), dim=2),
            torch.cat((prefix.mask, torch.ones_like(prefix.mask[:, :1])), dim=1),
        )

    def _run_expert(
        self,
        hidden: Tensor,
        keys: Tensor,
        values: Tensor,
        prefix_mask: Tensor,
        condition: Tensor | None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Run the expert's layers over tokens [B,L,width] that see the prefix and one another.

        Returns the tokens before the last norm, and each layer's own keys and values.
        """
        batch, length, _ = hidden.shape
        to_prefix = prefix_mask[:, None, :].expand(batch, length, prefix_mask.shape[1])
        to_all = torch.cat((to_prefix, to_prefix.new_ones(batch, length, length)), dim=2)
        steps = torch.arange(length, device=hidden.device)
        turn = self._turn(prefix_mask.long().sum(1, keepdim=True) + steps)
        own = []
        for index, layer in enumerate(self.expert.layers):
            normed, gate = layer.input_layernorm(hidden, condition)
            key, value = layer.self_attn.key_value(normed)
            own.append((rotate(key, *turn), value))
            key = torch.cat((keys[index], own[-1][0]), dim=1)
            value = torch.cat((values[index], value), dim=1)
            query = rotate(layer.self_attn.query(normed), *turn)
            hidden = layer.finish(hidden, attend(query, key, value, to_all), gate, condition)
        return hidden, own

    def _turn(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines for positions int64 [B,L], each [B,L,1,head_dim/2]."""
        return self.cosine[positions][:, :, None], self.sine[positions][:, :, None]
