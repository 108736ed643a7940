# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a flow time makes of the weights of a step, and how one captured step serves all times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNMENT_BYTES = 16  # which kernels take for granted


@dataclasses.dataclass(frozen=True, eq=False)
class LayerConstants:
    """What the time makes of a layer's norms: scale of the normed rows, bias of the product
    behind them, gate of the residual. All None where norms are not conditioned."""

    scales: tuple[Tensor | None, Tensor | None] = (None, None)
    biases: tuple[Tensor | None, Tensor | None] = (None, None)
    gates: tuple[Tensor | None, Tensor | None] = (None, None)


@dataclasses.dataclass(frozen=True, eq=False)
class StepConstants:
    """What one flow time makes of the weights: `entry`, the bias of the first product, the
    layers' constants, and the last norm's scale and the last product's bias."""

    entry: Tensor
    layers: list[LayerConstants]
    last_scale: Tensor | None
    last_bias: Tensor

    @property
    def of_layers(self) -> tuple[list[LayerConstants], Tensor | None]:
        """Return what the layers take, and the scale of the norm behind the last."""
        return self.layers, self.last_scale

    def tensors(self) -> list[Tensor]:
        """Return all tensors, always in the same order."""
        found: list[Tensor] = []

        def collect(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.changed(collect)
        return found

    def changed(self, change: Callable[[Tensor], Tensor]) -> StepConstants:
        """Return the constants with `change` of each tensor, always in the same order."""

        def of(pair: tuple[Tensor | None, Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
            first, second = (None if tensor is None else change(tensor) for tensor in pair)
            return first, second

        entry, (last_scale, _) = change(self.entry), of((self.last_scale, None))
        layers = [LayerConstants(of(x.scales), of(x.biases), of(x.gates)) for x in self.layers]
        return StepConstants(entry, layers, last_scale, change(self.last_bias))


class PackedConstants:
    """A time's constants in one piece of memory, so that one copy puts another time's there.

    buffer: uint8 [bytes]; views: the constants, as they lie in it.
    """

    def __init__(self, constants: StepConstants, device: torch.device) -> None:
        """Copy constants of any memory to a device, at once."""
        parts: list[Tensor] = []
        for tensor in constants.tensors():
            data = tensor.contiguous().flatten().view(torch.uint8)
            parts.append(F.pad(data, (0, -len(data) % ALIGNMENT_BYTES)))
        self.buffer = torch.cat(parts).to(device)
        places = iter(self.buffer.split([len(part) for part in parts]))

        def view(tensor: Tensor) -> Tensor:
            return next(places)[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)

        self.views = constants.changed(view)
