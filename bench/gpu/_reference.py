# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Full-size policies with random weights, and their plain torch arithmetic in any precision."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor, nn

from vla_deploy.backends.fused_inputs import Config
from vla_deploy.models import expert, gemma, language, pi, smolvla
from vla_deploy.models.families import FlowPolicy

SMALLER = {'o_proj.weight': 0.3, 'down_proj.weight': 0.3, 'fc2.weight': 0.3, 'dense.weight': 0.1}
ONES = ('layernorm.weight', 'layer_norm1.weight', 'layer_norm2.weight', '.norm.weight')


def random_policy(config: Config, device: torch.device) -> FlowPolicy:
    """Return a policy with random float32 weights of ordinary sizes on the device."""
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.device('meta'):
        module = (
            smolvla.SmolVLA(config)
            if isinstance(config, smolvla.SmolVLAConfig)
            else pi.Pi(config)
        )
    values = {
        name: _random(name, parameter, generator, device, isinstance(module, pi.Pi))
        for name, parameter in module.named_parameters()
    }
    module.load_state_dict(values, strict=True, assign=True)
    return module.to(device).eval().requires_grad_(False)


def _random(
    name: str, parameter: Tensor, generator: torch.Generator, device: torch.device, is_pi: bool
) -> nn.Parameter:
    value = torch.empty(parameter.shape, device=device)
    if parameter.dim() >= 2:
        fan_in = math.prod(parameter.shape[1:])
        factor = next((f for end, f in SMALLER.items() if name.endswith(end)), 1.0)
        value.normal_(0, factor / math.sqrt(fan_in), generator=generator)
    else:
        value.normal_(0, 0.02, generator=generator)
        if name.endswith(ONES) and not (is_pi and 'vision' not in name):
            value += 1.0  # Gemma's scales are kept less one
    return nn.Parameter(value)


def random_inputs(
    config: Config, device: torch.device, seed: int, shorter: int = 0
) -> tuple[Tensor, ...]:
    """Return images, image mask, tokens, token mask and state with a batch dimension, and noise;
    all cameras, a text that is so many tokens `shorter` than the longest."""
    generator = torch.Generator(device=device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, generator=generator)

    images = normal(1, config.camera_slots, 3, config.image_height, config.image_width) * 0.5
    vocabulary = (
        config.text.vocab_size
        if isinstance(config, smolvla.SmolVLAConfig)
        else config.vocab_size
    )
    tokens = torch.randint(
        vocabulary, (1, config.max_tokens), device=device, generator=generator
    )
    masks = [torch.ones(1, count, dtype=torch.bool, device=device)
             for count in (config.camera_slots, config.max_tokens)]
    masks[1][:, config.max_tokens - shorter :] = False
    state = normal(1, config.max_state_dim)
    noise = normal(1, config.chunk_size, config.max_action_dim)
    return images, masks[0], tokens, masks[1], state, noise


@torch.no_grad()
def plain_chunk(module: FlowPolicy, dtype: torch.dtype, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return the chunk of the plain modules, weights and activations in `dtype`; norms, softmax
    and rotation inside in float32, as the published code has them; the Euler sum in float32."""
    images, image_mask, tokens, token_mask, state, x = inputs
    with _in_precision():
        prefix = module.prefix(images.to(dtype), image_mask, tokens, token_mask, state.to(dtype))
        for row in module.time_table:
            time = row.to(dtype)[None]
            velocity = module.velocity(
                prefix.key, prefix.value, prefix.mask, x.to(dtype), time
            )
            x = x - velocity.float() / module.config.num_steps
    return x


def in_dtype(module: FlowPolicy, dtype: torch.dtype) -> FlowPolicy:
    """Return a copy with its parameters in `dtype`; tables stay float32."""
    tables = {name: buffer for name, buffer in module.named_buffers()}
    memo: dict[int, object] = {id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False)
                               for p in module.parameters()}
    memo |= {id(buffer): buffer for buffer in tables.values()}
    return copy.deepcopy(module, memo)


@contextlib.contextmanager
def _in_precision() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            *((m, 'rotate', _rotate) for m in (pi, smolvla, expert)),
            *((m, 'attend', _attend) for m in (pi, smolvla, expert)),
            (gemma.GemmaNorm, 'forward', _gemma_norm),
            (gemma.AdaptiveNorm, 'forward', _adaptive_norm),
            (language.RmsNorm, 'forward', _rms_norm),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    return language.rotate(x.float(), cosine, sine).to(x.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    groups = query.shape[2] // key.shape[2]
    key = key.repeat_interleave(groups, dim=2).permute(0, 2, 3, 1)
    value = value.repeat_interleave(groups, dim=2).transpose(1, 2)
    scores = torch.matmul(query.transpose(1, 2), key) * query.shape[-1] ** -0.5
    scores = torch.where(mask[:, None], scores, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).flatten(2)


def _unit(hidden: Tensor, eps: float) -> Tensor:
    wide = hidden.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)


def _gemma_norm(self: gemma.GemmaNorm, hidden: Tensor, condition: Tensor | None):
    return (_unit(hidden, self.eps) * (1.0 + self.weight.float())).to(hidden.dtype), None


def _adaptive_norm(self: gemma.AdaptiveNorm, hidden: Tensor, condition: Tensor):
    scale, shift, gate = self.dense(condition)[:, None].chunk(3, dim=-1)
    normed = _unit(hidden, self.eps) * (1.0 + scale.float()) + shift.float()
    return normed.to(hidden.dtype), gate


def _rms_norm(self: language.RmsNorm, hidden: Tensor) -> Tensor:
    return self.weight * _unit(hidden, self.eps).to(hidden.dtype)
