# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Flow matching: the Euler steps, the time embedding and the loss. Time runs from 1 (noise) to 0
(actions)."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PrefixTensors(Protocol):
    """What every step reads: key and value [layers,B,P,kv_heads,head_dim], mask bool [B,P]."""

    key: Tensor
    value: Tensor
    mask: Tensor


class FlowModel(nn.Module):
    """A policy that gives a velocity, and what integrates it.

    time_table: the embedded times of the steps, float32 [num_steps,width].
    """

    time_table: Tensor

    def keep_times(self, width: int, steps: int, min_period: float, max_period: float) -> None:
        """Embed the times of so many steps once; called at the end of a constructor."""
        self._embedding = width, min_period, max_period
        self.register_buffer('time_table', self.embed_time(euler_times(steps)), persistent=False)

    def embed_time(self, times: Tensor) -> Tensor:
        """Embed times [N] as float32 [N,width]."""
        return time_embedding(times, *self._embedding)

    def velocity(
        self, key: Tensor, value: Tensor, prefix_mask: Tensor, x: Tensor, time_emb: Tensor
    ) -> Tensor:
        """Return v [B,chunk,max_action_dim] at x of the same shape and time_emb [B,width]; the
        first three as in `PrefixTensors`."""
        raise NotImplementedError

    def step(
        self,
        key: Tensor,
        value: Tensor,
        prefix_mask: Tensor,
        x: Tensor,
        time_emb: Tensor,
        dt: Tensor | float,
    ) -> tuple[Tensor, Tensor]:
        """Take one Euler step: return x + dt·v and v. Shapes as in `velocity`; dt is a scalar."""
        velocity = self.velocity(key, value, prefix_mask, x, time_emb)
        return x + dt * velocity, velocity

    def sample(self, prefix: PrefixTensors, noise: Tensor) -> Tensor:
        """Integrate noise [B,chunk,max_action_dim] to a model-space chunk of the same shape."""
        x = noise
        for row in self.time_table:
            time_emb = row.expand(x.shape[0], -1)
            x, _ = self.step(
                prefix.key, prefix.value, prefix.mask, x, time_emb, -1.0 / len(self.time_table)
            )
        return x


def time_embedding(times: Tensor, width: int, min_period: float, max_period: float) -> Tensor:
    """Return sines then cosines of times [N], float32 [N,width].

    Times are taken as float32, the angles and their sines are computed in float64 and rounded
    once: this is what keeps the exported graph at the reference's numbers.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=times.device)
    period = min_period * (max_period / min_period) ** fraction
    angle = times.float().double()[:, None] * (1.0 / period * 2 * math.pi)
    return torch.cat((torch.sin(angle), torch.cos(angle)), dim=-1).float()


def euler_times(steps: int) -> Tensor:
    """Return the times of the Euler steps, float32 [steps]: 1, 1 - 1/steps, …, 1/steps."""
    times = [1.0 + i * (-1.0 / steps) for i in range(steps)]
    return torch.tensor(times, dtype=torch.float32, device='cpu')


def sample_times(batch: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw training times, float32 [batch]: Beta(1.5, 1) scaled to [0.001, 1).

    Beta(1.5, 1) has the distribution function t**1.5, so its inverse makes the draw.
    """
    uniform = torch.rand(batch, generator=generator)
    return uniform ** (1.0 / 1.5) * 0.999 + 0.001


def interpolate(actions: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return x_t and the velocity target for actions and noise [B,L,D] at times [B]."""
    t = times[:, None, None]
    return t * noise + (1 - t) * actions, noise - actions


def flow_loss(velocity: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of each element, [B,L,D]; the caller averages real dims."""
    return F.mse_loss(velocity, target, reduction='none')
