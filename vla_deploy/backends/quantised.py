# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Matrices in 8 bits, and products of them: float8 (1 sign, 4 exponent, 3 mantissa bits) with a
float32 scale for each row.

A row's scale makes its largest magnitude the largest number that there is in 8 bits. Weights get
theirs once, when their values arrive; activations get theirs as they come, so that no calibration
data are needed.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

CODES = torch.float8_e4m3fn
LARGEST = 448.0  # of the codes' magnitudes
SMALLEST = 1e-30  # magnitude that is told from a row of zeros
MULTIPLE = 16  # what both sizes of a matrix have to be, for products on tensor cores
SHORT_SUM = 4096  # products, whose sum may be kept short
ROWS_AT_A_TIME = 1024  # of a weight, so that little memory is taken beside it


@dataclasses.dataclass(frozen=True, eq=False)
class Quantised:
    """A matrix [rows,columns], about codes · scale: float8 [rows,columns] and float32 [rows]."""

    codes: Tensor
    scale: Tensor

    @classmethod
    def empty(cls, rows: int, columns: int, device: torch.device) -> Quantised:
        """Return a matrix without values."""
        codes = torch.empty((rows, columns), dtype=CODES, device=device)
        return cls(codes, torch.empty(rows, dtype=torch.float32, device=device))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice) -> Quantised:
        """Return some rows, in place."""
        return Quantised(self.codes[rows], self.scale[rows])

    def set(self, values: Tensor) -> None:
        """Take the values of a float32 matrix of this shape."""
        largest = torch.linalg.vector_norm(values, torch.inf, dim=1).clamp_(min=SMALLEST)
        torch.div(largest, LARGEST, out=self.scale)
        inverse = (LARGEST / largest)[:, None]
        parts = (matrix.split(ROWS_AT_A_TIME) for matrix in (self.codes, values, inverse))
        for codes, own, factor in zip(*parts, strict=True):
            codes.copy_(own * factor)

    def dequantised(self) -> Tensor:
        """Return the matrix as float32."""
        return self.codes.float() * self.scale[:, None]


Matrix = Tensor | Quantised


def fits(rows: int, columns: int) -> bool:
    """Say whether a weight of these sizes can be multiplied in 8 bits."""
    return rows % MULTIPLE == 0 and columns % MULTIPLE == 0


def quantised(values: Tensor) -> Quantised:
    """Return a float32 matrix in 8 bits."""
    result = Quantised.empty(*values.shape, values.device)
    result.set(values)
    return result


def product(x: Matrix, weight: Matrix) -> Tensor:
    """Return x · weightᵀ. Both are in 8 bits, with a result in bfloat16, or neither is.

    Tensor cores of Hopper keep sums of 8-bit products shorter than float32, unless they are told to
    add up parts in float32, which takes longer: long sums are. On the CPU sums are float32.
    """
    if isinstance(x, Quantised) != isinstance(weight, Quantised):
        raise TypeError('one factor of a product is in 8 bits and the other is not')
    if not (isinstance(x, Quantised) and isinstance(weight, Quantised)):
        return F.linear(x, weight)
    if x.codes.is_cuda:
        return torch._scaled_mm(
            x.codes, weight.codes.T, x.scale[:, None], weight.scale[None],
            out_dtype=torch.bfloat16, use_fast_accum=x.codes.shape[1] <= SHORT_SUM,
        )
    return F.linear(x.dequantised(), weight.dequantised()).to(torch.bfloat16)
