# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The action expert: narrow Llama layers that read the prefix's keys and values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla_deploy.models.language import (
    DecoderLayer,
    Projections,
    RmsNorm,
    TextConfig,
    attend,
    rotate,
)


def expert_sizes(text: TextConfig, width_multiplier: float) -> tuple[int, int]:
    """Return the expert's hidden size and MLP size for a language model's config.

    The MLP is 4 · 2/3 of the hidden size, truncated at each factor, rounded up to 256.
    """
    hidden = int(text.hidden_size * width_multiplier)
    intermediate = int(4 * int(2 * hidden / 3))
    return hidden, 256 * ((intermediate + 255) // 256)


class Expert(nn.Module):
    """One layer for each language layer: self-attention every n-th, else cross-attention.

    A self-attention layer sees the prefix's keys and values and, causally, the action tokens. A
    cross-attention layer sees only its own projection of the prefix's keys and values, which
    depends on neither the actions nor the time and is made once a chunk by `project_prefix`.
    """

    def __init__(
        self, text: TextConfig, num_layers: int, width_multiplier: float, self_attn_every: int
    ) -> None:
        super().__init__()
        hidden, intermediate = expert_sizes(text, width_multiplier)
        self.hidden_size = hidden
        self.self_attn_every = self_attn_every
        kv_size = text.num_key_value_heads * text.head_dim
        self.layers = nn.ModuleList(
            DecoderLayer(
                hidden,
                intermediate,
                text.rms_norm_eps,
                Projections(
                    hidden,
                    text.num_attention_heads,
                    text.num_key_value_heads,
                    text.head_dim,
                    None if self.is_self_attention(index) else kv_size,
                ),
            )
            for index in range(num_layers)
        )
        self.norm = RmsNorm(hidden, text.rms_norm_eps)

    def is_self_attention(self, index: int) -> bool:
        """Say whether layer `index` mixes the action tokens with one another."""
        return self.self_attn_every > 0 and index % self.self_attn_every == 0

    def project_prefix(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Turn a language layer's keys and values [B,P,kv_heads,head_dim] into what layer reads."""
        if self.is_self_attention(index):
            return key, value
        attn = self.layers[index].self_attn
        shape = key.shape
        return attn.k_proj(key.flatten(2)).view(shape), attn.v_proj(value.flatten(2)).view(shape)

    def forward(
        self,
        hidden: Tensor,
        keys: Tensor,
        values: Tensor,
        prefix_mask: Tensor,
        cosine: Tensor,
        sine: Tensor,
    ) -> Tensor:
        """Run all layers over the action tokens.

        hidden [B,L,hidden_size]; keys and values [layers,B,P,kv_heads,head_dim] as made by
        `project_prefix`; prefix_mask bool [B,P]; cosine and sine [positions,head_dim/2]. Returns
        normalised features [B,L,hidden_size].
        """
        batch, length, _ = hidden.shape
        steps = torch.arange(length, device=hidden.device)
        to_prefix = prefix_mask[:, None, :].expand(batch, length, prefix_mask.shape[1])
        causal = (steps[None, :] <= steps[:, None]).expand(batch, length, length)
        to_all = torch.cat((to_prefix, causal), dim=2)
        after_prefix = prefix_mask.long().sum(1, keepdim=True) + steps
        joint = (cosine[after_prefix][:, :, None], sine[after_prefix][:, :, None])
        own = (cosine[:length][None, :, None], sine[:length][None, :, None])
        for index, layer in enumerate(self.layers):
            normed = layer.input_layernorm(hidden)
            query = layer.self_attn.query(normed)
            if self.is_self_attention(index):
                key, value = layer.self_attn.key_value(normed)
                key = torch.cat((keys[index], rotate(key, *joint)), dim=1)
                value = torch.cat((values[index], value), dim=1)
                attended = attend(rotate(query, *joint), key, value, to_all)
            else:
                attended = attend(rotate(query, *own), keys[index], values[index], to_prefix)
            hidden = layer.finish(hidden, attended)
        return self.norm(hidden)
