# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Operations of which only products have a meaning, to load their libraries; and all others, to
load their kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vla_deploy.backends.quantised import Matrix, Quantised
from vla_deploy.backends.torch_ops import Heads, Inline, Ops, Side, TorchOps, Turn


class ProductOps(TorchOps):
    """See Ops. What is no product returns numbers without a meaning, of the right shape; it
    launches nothing and keeps nothing."""

    def __init__(self, ops: Ops) -> None:
        """`ops`: those whose products they are."""
        self._ops = ops

    def side(self) -> Side:
        """See Ops."""
        return Inline()

    def gelu_linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See Ops."""
        return self._ops.gelu_linear(x, weight, bias)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, length: Tensor, extra: int, mode: int
    ) -> Tensor:
        """See Ops."""
        return queries.flatten(1)

    def norm(
        self, x: Tensor, eps: float, parts: Tensor | None = None, narrow: bool = False
    ) -> Matrix:
        """See Ops."""
        return Quantised.empty(*x.shape, x.device) if narrow else x

    def rope(
        self, qkv: Tensor, heads: Heads, turn: Turn, offset: Tensor, keys: Tensor,
        values: Tensor, keys_only: bool,
    ) -> Tensor | None:
        """See Ops."""
        return None if keys_only else qkv.new_empty((len(qkv), heads.query, heads.dim))

    def activate(self, x: Tensor, silu: bool, narrow: bool = False) -> Matrix:
        """See Ops."""
        size = len(x), x.shape[1] // 2
        return Quantised.empty(*size, x.device) if narrow else x.new_empty(size)

    def add_norm(
        self, x: Tensor, update: Tensor | None, bias: Tensor | None, weight: Tensor,
        shift: Tensor, eps: float,
    ) -> Tensor:
        """See Ops."""
        return x


class KernelOps:
    """See Ops. Products of the language layers return numbers without a meaning, of the right
    shape; they launch nothing, and make no handle of cuBLAS."""

    def __init__(self, ops: Ops) -> None:
        """`ops`: whose others they are."""
        self._ops = ops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def product(self, x: Matrix, weight: Matrix) -> Tensor:
        """See Ops."""
        size = len(x), len(weight)
        if isinstance(x, Quantised):
            return x.scale.new_empty(size, dtype=torch.bfloat16)
        return x.new_empty(size)

    def product_parts(self, x: Tensor, weight: Tensor, parts: int) -> Tensor:
        """See Ops."""
        return x.new_empty((parts, len(x), len(weight)))

    def add_product(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """See Ops."""
