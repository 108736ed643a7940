# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The least time that a chunk can take on a card: its arithmetic and its bytes over what the
card was measured to do. A phase takes at least the longer of the two."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from vla_deploy.backends.fused_inputs import Config
from vla_deploy.models.expert import expert_sizes
from vla_deploy.models.smolvla import SmolVLAConfig

BYTES_PER_WEIGHT = 2
PHASES = ('vision', 'prefix', 'denoise')
COPY_BYTES, MATRIX_SIDE, REPEATS = 2 << 30, 8192, 20


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """Measured rates of a card: bytes read from its memory, and bf16 matrix arithmetic."""

    read_bytes_per_s: float
    flops_per_s: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Floating-point operations, and the fewest bytes read, of one phase of a chunk."""

    flops: float
    read_bytes: float

    def floor_s(self, ceilings: Ceilings) -> float:
        """Return the least time in seconds."""
        return max(
            self.flops / ceilings.flops_per_s, self.read_bytes / ceilings.read_bytes_per_s
        )


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Weights of a language or expert layer that take part, and its attention's width."""

    width: int
    attention: int
    kv: int
    mlp: int

    @property
    def key_value(self) -> int:
        return 2 * self.width * self.kv

    @property
    def rest(self) -> int:
        return 2 * self.width * self.attention + 3 * self.width * self.mlp


def phase_costs(
    config: Config, observations: int = 1, *, cameras: int | None = None,
    tokens: int | None = None, bytes_per_weight: int = BYTES_PER_WEIGHT,
) -> Mapping[str, Cost]:
    """Return the cost of each phase for so many observations together, which read the weights
    once. `cameras` and `tokens` of a text, each: all that there can be where not given."""
    config = dataclasses.replace(
        config,
        camera_slots=config.camera_slots if cameras is None else cameras,
        max_tokens=config.max_tokens if tokens is None else tokens,
    )
    text, smolvla = config.text, isinstance(config, SmolVLAConfig)
    if isinstance(config, SmolVLAConfig):
        layers, every = config.num_vlm_layers, config.self_attn_every_n_layers
        crossing = sum(not (every > 0 and i % every == 0) for i in range(layers))
        width, mlp = expert_sizes(text, config.expert_width_multiplier)
        joined, state_in_suffix = config.scale_factor**2, False
    else:
        layers, crossing, joined = text.num_layers, 0, 1
        width, mlp = config.expert.hidden_size, config.expert.intermediate_size
        state_in_suffix = not config.state_in_text
    attention = text.num_attention_heads * text.head_dim
    kv = text.num_key_value_heads * text.head_dim
    language = _Sizes(text.hidden_size, attention, kv, text.intermediate_size)
    expert = _Sizes(width, attention, kv, mlp)
    length = config.camera_slots * config.tokens_per_image + config.max_tokens + int(smolvla)
    prefix_weights = layers * language.key_value + (layers - 1) * language.rest
    rows = config.chunk_size + int(state_in_suffix)
    step_weights = (
        layers * expert.rest + (layers - crossing) * expert.key_value
        + width * width + 2 * config.max_action_dim * width
    )
    keys_values = observations * layers * length * 2 * kv
    seen = (layers - crossing) * (length + rows) + crossing * length
    costs = {
        'vision': _vision(config, joined, bytes_per_weight),
        'prefix': Cost(
            2.0 * length * prefix_weights + 4.0 * length**2 * attention * (layers - 1),
            bytes_per_weight * prefix_weights,
        ),
        'denoise': Cost(
            config.num_steps * (2.0 * rows * step_weights + 4.0 * rows * attention * seen),
            config.num_steps * bytes_per_weight * (step_weights + keys_values),
        ),
    }
    return {
        phase: dataclasses.replace(cost, flops=observations * cost.flops)
        for phase, cost in costs.items()
    }


def _vision(config: Config, joined: int, bytes_per_weight: int) -> Cost:
    vision = config.vision
    width, tokens = vision.hidden_size, config.tokens_per_image
    patches = tokens * joined
    weights = vision.num_hidden_layers * (
        4 * width**2 + 2 * width * vision.intermediate_size
    ) + vision.num_channels * vision.patch_size**2 * width
    projector = width * joined * config.text.hidden_size
    per_camera = (
        2.0 * patches * weights + 4.0 * patches**2 * width * vision.num_hidden_layers
        + 2.0 * tokens * projector
    )
    return Cost(config.camera_slots * per_camera, bytes_per_weight * (weights + projector))


def measure_ceilings() -> Ceilings:
    """Measure the current card: the fastest of a copy, a sum and a skinny product, and a square
    bf16 product, all of random numbers."""
    return Ceilings(max(_stream_rates()), product_rate())


def _stream_rates() -> list[float]:
    source = torch.randn(COPY_BYTES // 4, device='cuda')
    target = torch.empty_like(source)
    copied = median_s(lambda: target.copy_(source))
    summed = median_s(source.sum)
    weight = torch.randn(65536, 16384, device='cuda', dtype=torch.bfloat16)
    x = torch.randn(16, 16384, device='cuda', dtype=torch.bfloat16)
    multiplied = median_s(lambda: F.linear(x, weight))
    return [
        2 * COPY_BYTES / copied,
        COPY_BYTES / summed,
        BYTES_PER_WEIGHT * weight.numel() / multiplied,
    ]


def product_rate(before: Callable[[], Any] | None = None) -> float:
    """Return FLOP/s of a square bf16 product; `before` each one something else may run, which
    tells how fast the card multiplies in the state that this leaves it in."""
    a, b = torch.randn(
        2, MATRIX_SIDE, MATRIX_SIDE, device='cuda', dtype=torch.bfloat16
    ) / math.sqrt(MATRIX_SIDE)
    return 2 * MATRIX_SIDE**3 / median_s(lambda: a @ b, before=before)


def median_s(
    function: Callable[[], Any], repeats: int = REPEATS, warm_ups: int = 3,
    before: Callable[[], Any] | None = None,
) -> float:
    """Return the median duration of a call on the GPU in seconds, its end awaited; what comes
    `before` each is not counted."""
    durations = []
    for index in range(warm_ups + repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if before is not None:
            before()
        torch.cuda.synchronize()
        begin.record()
        function()
        end.record()
        end.synchronize()
        if index >= warm_ups:
            durations.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(durations)
