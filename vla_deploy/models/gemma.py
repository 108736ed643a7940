# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Gemma layers, plain and conditioned on the flow time, for PaliGemma and pi's action expert.

They differ from Llama layers in the norm, which scales by 1 + weight, in the GELU of the MLP, and
in the conditioned form, where scale, shift and a gate of the residual come from the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_deploy.models.language import ROPE_BASE, Projections


@dataclass(frozen=True)
class GemmaConfig:
    """Sizes of a Gemma stack."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6


class GemmaNorm(nn.Module):
    """Root-mean-square normalisation, scaled by 1 + weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, hidden: Tensor, condition: Tensor | None) -> tuple[Tensor, None]:
        """Map [B,L,size] to the same shape; there is no condition and no gate."""
        return _unit_rms(hidden, self.eps) * (1.0 + self.weight), None


class AdaptiveNorm(nn.Module):
    """Root-mean-square normalisation with scale, shift and gate from a condition."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(size, 3 * size)
        self.eps = eps

    def forward(self, hidden: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map hidden [B,L,size] and condition [B,size] to the normed [B,L,size] and the gate of
        the residual that follows, [B,1,size]."""
        if condition is None:
            raise ValueError('a conditioned norm needs a condition')
        scale, shift, gate = self.dense(condition)[:, None].chunk(3, dim=-1)
        return _unit_rms(hidden, self.eps) * (1.0 + scale) + shift, gate


def _unit_rms(hidden: Tensor, eps: float) -> Tensor:
    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)


class GemmaMlp(nn.Module):
    """down(gelu(gate(x)) * up(x)) with the tanh form of GELU, without biases."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., hidden_size] to the same shape."""
        gate = F.gelu(self.gate_proj(hidden), approximate='tanh')
        return self.down_proj(gate * self.up_proj(hidden))


class GemmaLayer(nn.Module):
    """One pre-norm layer; attention itself is left to the caller, who owns masks and caches."""

    def __init__(self, config: GemmaConfig, conditioned: bool) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        norm = AdaptiveNorm if conditioned else GemmaNorm
        self.self_attn = Projections(
            size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )
        self.mlp = GemmaMlp(size, config.intermediate_size)
        self.input_layernorm = norm(size, eps)
        self.post_attention_layernorm = norm(size, eps)

    def finish(
        self, hidden: Tensor, attended: Tensor, gate: Tensor | None, condition: Tensor | None
    ) -> Tensor:
        """Add the attention's result [B,L,heads*head_dim] to hidden, then the MLP's.

        `gate` is the one that `input_layernorm` gave.
        """
        hidden = self.add(hidden, self.self_attn.o_proj(attended), gate)
        normed, gate = self.post_attention_layernorm(hidden, condition)
        return self.add(hidden, self.mlp(normed), gate)

    def add(self, hidden: Tensor, update: Tensor, gate: Tensor | None) -> Tensor:
        """Return the next state of the residual stream."""
        return hidden + update if gate is None else hidden + update * gate


class GemmaStack(nn.Module):
    """The layers and the last norm, without embeddings."""

    def __init__(self, config: GemmaConfig, conditioned: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            GemmaLayer(config, conditioned) for _ in range(config.num_layers)
        )
        norm = AdaptiveNorm if conditioned else GemmaNorm
        self.norm = norm(config.hidden_size, config.rms_norm_eps)


class GemmaText(GemmaStack):
    """The layers behind token embeddings."""

    def __init__(self, config: GemmaConfig, vocab_size: int) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(vocab_size, config.hidden_size)


def gemma_rope_tables(positions: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, float32 [positions, head_dim/2], base 10 000.

    In the order of operations of Gemma: the inverse frequency first, then times the position.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device='cpu') / head_dim
    frequency = 1.0 / ROPE_BASE**exponent
    position = torch.arange(positions, dtype=torch.float32, device='cpu')
    radians = position[:, None] * frequency
    return torch.cos(radians), torch.sin(radians)
