# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Llama layers: RMS norm, rotary positions, grouped-query attention, gated MLP.

Both the language model and the action expert are built from these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a Llama-like stack."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float = 1e-5


class RmsNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., size] to the same shape."""
        variance = hidden.pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden * torch.rsqrt(variance + self.eps))


class GatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., hidden_size] to the same shape."""
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class Projections(nn.Module):
    """Query, key, value and output projections of one grouped-query attention.

    `kv_input_size` differs from `hidden_size` where keys and values come from another stream.
    """

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        kv_input_size: int | None = None,
    ) -> None:
        super().__init__()
        kv_input_size = hidden_size if kv_input_size is None else kv_input_size
        self.head_dim = head_dim
        self.q_proj = nn.Linear(hidden_size, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(kv_input_size, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(kv_input_size, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, hidden_size, bias=False)

    def _split(self, projected: Tensor) -> Tensor:
        return projected.view(*projected.shape[:-1], -1, self.head_dim)

    def query(self, hidden: Tensor) -> Tensor:
        """Map [B,L,hidden] to queries [B,L,heads,head_dim], before rotation."""
        return self._split(self.q_proj(hidden))

    def key_value(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B,L,kv_input] to keys and values [B,L,kv_heads,head_dim], before rotation."""
        return self._split(self.k_proj(hidden)), self._split(self.v_proj(hidden))


class DecoderLayer(nn.Module):
    """One pre-norm layer; attention itself is left to the caller, who owns masks and caches."""

    def __init__(self, hidden_size: int, intermediate_size: int, eps: float, attn: Projections):
        super().__init__()
        self.self_attn = attn
        self.mlp = GatedMlp(hidden_size, intermediate_size)
        self.input_layernorm = RmsNorm(hidden_size, eps)
        self.post_attention_layernorm = RmsNorm(hidden_size, eps)

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Add the attention's result [B,L,heads*head_dim] to hidden, then the MLP's."""
        hidden = self.add(hidden, self.self_attn.o_proj(attended))
        return self.add(hidden, self.mlp(self.post_attention_layernorm(hidden)))

    def add(self, hidden: Tensor, update: Tensor) -> Tensor:
        """Return the next state of the residual stream."""
        return update + hidden


class TextModel(nn.Module):
    """Token embeddings and the first layers of the language model."""

    def __init__(self, config: TextConfig, num_layers: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(
                config.hidden_size,
                config.intermediate_size,
                config.rms_norm_eps,
                Projections(
                    config.hidden_size,
                    config.num_attention_heads,
                    config.num_key_value_heads,
                    config.head_dim,
                ),
            )
            for _ in range(num_layers)
        )
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


def rope_tables(positions: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, float32 [positions, head_dim/2], base 10 000.

    Computed once in float32, in the reference's order of operations (position / base**exponent),
    so that torch and the exported graph look up the very same numbers.
    """
    half = head_dim // 2
    exponent = (2.0 / head_dim) * torch.arange(half, dtype=torch.float32, device='cpu')
    position = torch.arange(positions, dtype=torch.float32, device='cpu')
    radians = position[:, None] / ROPE_BASE**exponent
    return torch.cos(radians), torch.sin(radians)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate x [B,L,heads,head_dim] by cosine and sine [B,L,1,head_dim/2]; halves, not pairs."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention in float32.

    query [B,L,heads,head_dim], key and value [B,S,kv_heads,head_dim], mask bool [B,L,S] (True
    where L may look at S) to [B,L,heads*head_dim]. A row without any True averages all values,
    as the reference does; such rows are padding.
    """
    groups = query.shape[2] // key.shape[2]
    key = key.repeat_interleave(groups, dim=2).permute(0, 2, 3, 1)
    value = value.repeat_interleave(groups, dim=2).transpose(1, 2)
    scores = torch.matmul(query.transpose(1, 2), key) * query.shape[-1] ** -0.5
    scores = torch.where(mask[:, None], scores, torch.finfo(scores.dtype).min)
    mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
    return mixed.transpose(1, 2).flatten(2)
