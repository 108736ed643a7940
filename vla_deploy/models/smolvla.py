# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""SmolVLA: SmolVLM's vision tower and first text layers, and a flow-matching action expert.

The prefix (image tokens, text tokens, one state token) becomes keys and values once a chunk; each
Euler step runs the expert over the noisy actions. Names below `SmolVLA` equal those in a LeRobot
checkpoint without its leading `model.`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_deploy.models.expert import Expert
from vla_deploy.models.flow import FlowModel
from vla_deploy.models.language import TextConfig, TextModel, attend, rope_tables, rotate
from vla_deploy.models.vision import Connector, VisionConfig, VisionTower

CHECKPOINT_PREFIX = 'model.'
UNUSED_KEYS = ('vlm_with_expert.vlm.lm_head.weight',)


@dataclass(frozen=True)
class SmolVLAConfig:
    """Everything the graph's shapes and constants depend on."""

    vision: VisionConfig
    text: TextConfig
    scale_factor: int
    num_vlm_layers: int
    expert_width_multiplier: float
    self_attn_every_n_layers: int
    image_height: int
    image_width: int
    camera_slots: int
    max_tokens: int
    max_state_dim: int
    max_action_dim: int
    chunk_size: int
    num_steps: int
    min_period: float = 4e-3
    max_period: float = 4.0

    def __post_init__(self) -> None:
        """Raise ValueError, naming the sizes, where images and patches do not fit."""
        block = self.vision.patch_size * self.scale_factor
        if self.image_height % block or self.image_width % block:
            raise ValueError(
                f'images of {self.image_width}x{self.image_height} do not divide into blocks of '
                f'{block} pixels (patch {self.vision.patch_size} x scale {self.scale_factor})'
            )
        if self.image_height != self.image_width:
            raise ValueError(
                f'images must be square, not {self.image_width}x{self.image_height}: the '
                "reference's pixel shuffle takes the square root of the number of patches"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in one image."""
        patch = self.vision.patch_size
        return self.image_height // patch, self.image_width // patch

    @property
    def tokens_per_image(self) -> int:
        """Image tokens that enter the language model for one camera."""
        rows, columns = self.grid
        return rows * columns // self.scale_factor**2

    @property
    def prefix_length(self) -> int:
        """Tokens of the prefix P: all camera slots, the padded text and the state."""
        return self.camera_slots * self.tokens_per_image + self.max_tokens + 1

    @property
    def kv_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of a prefix's keys and of its values for one observation."""
        text = self.text
        return (
            self.num_vlm_layers, 1, self.prefix_length, text.num_key_value_heads, text.head_dim
        )


class _VlmParts(nn.Module):
    def __init__(self, config: SmolVLAConfig) -> None:
        super().__init__()
        image_hw = (config.image_height, config.image_width)
        self.vision_model = VisionTower(config.vision, image_hw)
        self.connector = Connector(
            config.vision.hidden_size, config.text.hidden_size, config.scale_factor, config.grid
        )
        self.text_model = TextModel(config.text, config.num_vlm_layers)


class _Vlm(nn.Module):
    def __init__(self, config: SmolVLAConfig) -> None:
        super().__init__()
        self.model = _VlmParts(config)


class _VlmWithExpert(nn.Module):
    def __init__(self, config: SmolVLAConfig) -> None:
        super().__init__()
        self.vlm = _Vlm(config)
        self.lm_expert = Expert(
            config.text,
            config.num_vlm_layers,
            config.expert_width_multiplier,
            config.self_attn_every_n_layers,
        )


@dataclass
class Prefix:
    """What the prefix leaves behind.

    key and value: [layers,B,P,kv_heads,head_dim], keys rotated, cross-attention layers already
    projected for the expert. mask: bool [B,P]. hidden: [B,P,hidden] entering the last text layer.
    """

    key: Tensor
    value: Tensor
    mask: Tensor
    hidden: Tensor


class SmolVLA(FlowModel):
    """The policy without its processors: model-space tensors in, model-space velocities out."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: SmolVLAConfig) -> None:
        super().__init__()
        self.config = config
        self.vlm_with_expert = _VlmWithExpert(config)
        width = self.expert.hidden_size
        self.state_proj = nn.Linear(config.max_state_dim, config.text.hidden_size)
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.action_out_proj = nn.Linear(width, config.max_action_dim)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        positions = config.prefix_length + config.chunk_size
        cosine, sine = rope_tables(positions, config.text.head_dim)
        self.register_buffer('cosine', cosine, persistent=False)
        self.register_buffer('sine', sine, persistent=False)
        self.keep_times(width, config.num_steps, config.min_period, config.max_period)

    @property
    def parts(self) -> _VlmParts:
        """The vision tower, the connector and the text model."""
        return self.vlm_with_expert.vlm.model

    @property
    def expert(self) -> Expert:
        """The action expert."""
        return self.vlm_with_expert.lm_expert

    def embed_images(self, images: Tensor) -> Tensor:
        """Map images [B,slots,3,H,W] in [-1,1] to image tokens [B,slots*tokens,hidden], unscaled.

        All cameras go through the tower in one call.
        """
        batch = images.shape[0]
        tokens = self.parts.connector(self.parts.vision_model(images.flatten(0, 1)))
        return tokens.reshape(batch, -1, tokens.shape[-1])

    def embed_prefix(
        self,
        image_tokens: Tensor,
        image_mask: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        state: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Join image tokens, text and state.

        image_tokens as from `embed_images`, image_mask bool [B,slots], tokens int64 [B,T],
        token_mask bool [B,T], state [B,max_state_dim]. Returns embeddings [B,P,hidden] and their
        mask bool [B,P].
        """
        scale = math.sqrt(image_tokens.shape[-1])
        text = self.parts.text_model.embed_tokens(tokens)
        embedded = torch.cat(
            (image_tokens * scale, text * scale, self.state_proj(state)[:, None]), dim=1
        )
        per_image = image_mask.repeat_interleave(self.config.tokens_per_image, dim=1)
        valid = torch.ones_like(token_mask[:, :1])
        return embedded, torch.cat((per_image, token_mask, valid), dim=1)

    def language_keys_values(
        self, hidden: Tensor, mask: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Run the text layers over the prefix.

        hidden [B,P,hidden], mask bool [B,P]. Images and text do not look at the state token,
        which is last; it looks at everything. Returns each layer's rotated keys and its values,
        [B,P,kv_heads,head_dim], and the hidden state [B,P,hidden] that enters the last layer,
        of which only keys and values are needed.
        """
        length = hidden.shape[1]
        is_state = torch.arange(length, device=hidden.device) == length - 1
        allowed = mask[:, None, :] & mask[:, :, None]
        allowed = allowed & (~is_state[None, None, :] | is_state[None, :, None])
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        turn = (self.cosine[positions][:, :, None], self.sine[positions][:, :, None])
        layers = self.parts.text_model.layers
        cache = []
        for index, layer in enumerate(layers):
            normed = layer.input_layernorm(hidden)
            key, value = layer.self_attn.key_value(normed)
            key = rotate(key, *turn)
            cache.append((key, value))
            if index + 1 < len(layers):
                query = rotate(layer.self_attn.query(normed), *turn)
                hidden = layer.finish(hidden, attend(query, key, value, allowed))
        return cache, hidden

    def prefix_from_image_tokens(
        self,
        image_tokens: Tensor,
        image_mask: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        state: Tensor,
    ) -> Prefix:
        """Make the prefix from image tokens, so that several texts may share one set of images."""
        embedded, mask = self.embed_prefix(image_tokens, image_mask, tokens, token_mask, state)
        cache, hidden = self.language_keys_values(embedded, mask)
        read = [self.expert.project_prefix(i, k, v) for i, (k, v) in enumerate(cache)]
        key = torch.stack([k for k, _ in read])
        value = torch.stack([v for _, v in read])
        return Prefix(key, value, mask, hidden)

    def prefix(
        self,
        images: Tensor,
        image_mask: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        state: Tensor,
    ) -> Prefix:
        """Make the prefix from images [B,slots,3,H,W]; the other shapes as in `embed_prefix`."""
        image_tokens = self.embed_images(images)
        return self.prefix_from_image_tokens(image_tokens, image_mask, tokens, token_mask, state)

    def velocity(
        self, key: Tensor, value: Tensor, prefix_mask: Tensor, x: Tensor, time_emb: Tensor
    ) -> Tensor:
        """As FlowModel.velocity."""
        actions = self.action_in_proj(x)
        time = time_emb[:, None, :].expand_as(actions)
        fused = F.silu(self.action_time_mlp_in(torch.cat((actions, time), dim=2)))
        fused = self.action_time_mlp_out(fused)
        features = self.expert(fused, key, value, prefix_mask, self.cosine, self.sine)
        return self.action_out_proj(features)
