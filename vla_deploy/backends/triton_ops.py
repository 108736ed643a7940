# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The operations of the torch backend on Triton kernels; `torch_ops` says what they compute.

The rows of an observation's Euler step are few (M ≤ 128), so that one block of rows covers them
and time goes into reading weights; those of several observations are several blocks, or
their products are left to cuBLAS where that was measured to be faster. Wide products of prefix and
vision tower always are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vla_deploy.backends import triton_attention, triton_products, triton_rows
from vla_deploy.backends.cuda_graph import SideStream
from vla_deploy.backends.quantised import Matrix, Quantised
from vla_deploy.backends.torch_ops import Heads, Inline, LibraryProducts, Rows, Side, Turn, joined
from vla_deploy.backends.triton_launch import (
    NARROW,
    PLAIN,
    WIDE,
    WIDEST,
    blocks_of,
    power_of_2,
    sharing,
    squares_of,
)
from vla_deploy.backends.triton_tuned import TunedLauncher
from vla_deploy.backends.tuning import ONE_BLOCK, Config, Tuning, by_library, padded_rows

MAX_COUNTERS, PREFETCH_LINE, TOKEN_STEP = 8192, 128, 8
GLU_COLUMNS = 2048  # of a block of a gate


class TritonOps(TunedLauncher, LibraryProducts):
    """See `torch_ops.Ops`. One thread at a time launches Triton's kernels; beside it another one
    may call products of libraries only (`product_ops.ProductOps`), on the same stream."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, tuning: Tuning, overlap: bool,
        policy: str = 'any',
    ) -> None:
        """`tuning`, `overlap`, `policy`: see TunedLauncher."""
        super().__init__(device, dtype, tuning, overlap, policy)
        self._exact = dtype == torch.float32
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None
        self._counters = torch.zeros(MAX_COUNTERS, dtype=torch.int32, device=device)
        self._none = torch.zeros(16, dtype=dtype, device=device)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See Ops."""
        return self._linear(x, weight, bias=bias, silu=True)[0]

    def enter(self, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | None) -> Rows:
        """See Ops."""
        return self._rows(self._linear(x, weight, bias=bias, scale=scale, squares=True))

    def add(
        self, rows: Rows, x: Tensor, weight: Tensor, gate: Tensor | None, scale: Tensor | None
    ) -> Rows:
        """See Ops."""
        return self._rows(
            self._linear(x, weight, gate=gate, residual=rows.hidden, scale=scale, squares=True)
        )

    def leave(
        self, rows: Rows, weight: Tensor, bias: Tensor, eps: float, x: Tensor, dt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See Ops."""
        y, _, _, velocity = self._linear(
            rows.scaled, weight, bias=bias, gate=dt, residual=x, rows=rows, eps=eps
        )
        return y, velocity

    def qkv(
        self, rows: Rows, weight: Tensor, bias: Tensor | None, eps: float, heads: Heads,
        turn: Turn, offset: Tensor, keys: Tensor, values: Tensor,
    ) -> Tensor:
        """See Ops."""
        shape = (len(rows.hidden), heads.query, heads.dim)
        cache = (keys, values, turn, offset)
        count = (heads.query + 2 * heads.kv) * (heads.dim // 2)
        return self._pair(rows, weight, bias, eps, shape, count, heads, cache, silu=False)

    def glu(
        self, rows: Rows, weight: Tensor, bias: Tensor | None, eps: float, silu: bool
    ) -> Tensor:
        """See Ops."""
        features = len(weight) // 2
        shape = (len(rows.hidden), features)
        return self._pair(rows, weight, bias, eps, shape, features, None, None, silu)

    def side(self) -> Side:
        """See Ops."""
        return Inline() if self._stream is None else SideStream(self._stream, self._set_apart)

    def join(self, first: Rows, second: Rows, count: int) -> Rows:
        """See Ops."""
        hidden = joined(first.hidden, second.hidden, count)
        parts = max(len(first.squares), len(second.squares))  # blocks of columns may differ
        squares = torch.zeros((parts, padded_rows(len(hidden))), device=self._device)
        whole = squares[:, : len(hidden)].view(parts, count, -1)
        own = len(first.hidden) // count
        for rows, target in ((first, whole[:, :, :own]), (second, whole[:, :, own:])):
            sums = rows.squares[:, : len(rows.hidden)]
            target[: len(sums)] = sums.view(len(sums), count, -1)
        return Rows(hidden, hidden, squares)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, length: Tensor, extra: int, mode: int
    ) -> Tensor:
        """See Ops."""
        (rows, heads, dim), kv, count = queries.shape, keys.shape[1], len(length)
        tokens = rows // count
        out = torch.empty((rows, heads * dim), dtype=queries.dtype, device=queries.device)

        def launch(config: Config) -> Tensor:
            blocks = blocks_of(tokens * heads // kv, config.rows)
            parts = config.split * rows * heads if config.split > 1 else 1
            partial, stats = self._float(parts * dim), self._float(2 * parts)
            self._launch(
                triton_attention.attention_kernel, (blocks, kv * count, config.split), config,
                (queries, keys, values, out, length, partial, stats, dim**-0.5),
                TOKENS=tokens, EXTRA=extra, MODE=mode, HEADS=heads, KV_HEADS=kv, HEAD_DIM=dim,
                BATCH=count, CACHE=len(keys) // count,
                BM=config.rows, BN=config.columns, SPLIT=config.split,
                PREFETCH=tokens <= ONE_BLOCK, PDL=self._overlap, EXACT=self._exact,
            )
            if config.split > 1:
                self._launch(
                    triton_attention.merge_kernel, (rows * heads,),
                    PLAIN if count == 1 else NARROW, (partial, stats, out),
                    ROWS=rows * heads, HEAD_DIM=dim, SPLIT=config.split, PDL=self._overlap,
                )
            return out

        near = blocks_of(tokens, TOKEN_STEP) * TOKEN_STEP  # with a state token or without
        several = (count,) if count > 1 else ()
        return self._call('attention', (near, heads, kv, dim, *several), launch)

    def norm(
        self, x: Tensor, eps: float, parts: Tensor | None = None, narrow: bool = False
    ) -> Matrix:
        """See Ops."""
        y, places = self._out(x, x.shape[1], narrow)
        self._launch_rows(
            triton_rows.norm_kernel, x, (x, x if parts is None else parts, *places, eps),
            WIDTH=x.shape[1], BLOCK=power_of_2(x.shape[1]), QUANTISE=narrow,
            PARTS=0 if parts is None else len(parts), TOTAL=0 if parts is None else x.numel(),
        )
        return y

    def _out(self, x: Tensor, columns: int, narrow: bool) -> tuple[Matrix, tuple[Tensor, Tensor]]:
        """Return a matrix of as many rows, and what a kernel writes it to."""
        if not narrow:
            y = x.new_empty((len(x), columns))
            return y, (y, self._none)
        rows = Quantised.empty(len(x), columns, x.device)
        return rows, (rows.codes, rows.scale)

    def rope(
        self, qkv: Tensor, heads: Heads, turn: Turn, offset: Tensor, keys: Tensor,
        values: Tensor, keys_only: bool,
    ) -> Tensor | None:
        """See Ops."""
        return self._turned(qkv, heads, (keys, values, turn, offset), keys_only, None, None, 0.0)

    def _turned(
        self, product: Tensor, heads: Heads, cache: tuple[Tensor, Tensor, Turn, Tensor],
        keys_only: bool, rows: Rows | None, bias: Tensor | None, eps: float,
    ) -> Tensor | None:
        """Split and rotate a product; of `rows`, where the norm is still to be taken."""
        keys, values, turn, offset = cache
        queries = product.new_empty((len(product), heads.query, heads.dim))
        given, ending = self._ending(rows, bias, eps)
        self._launch_rows(
            triton_rows.rope_kernel, product,
            (product, queries, keys, values, turn.cosine, turn.sine, offset, *given),
            HEADS=heads.query, KV_HEADS=heads.kv, HEAD_DIM=heads.dim,
            BH=power_of_2(heads.rows // heads.dim), KEYS_ONLY=keys_only,
            **sharing(len(product), offset), **ending,
        )
        return None if keys_only else queries

    def activate(self, x: Tensor, silu: bool, narrow: bool = False) -> Matrix:
        """See Ops."""
        return self._activated(x, silu, None, None, 0.0, narrow)

    def _activated(
        self, x: Tensor, silu: bool, rows: Rows | None, bias: Tensor | None, eps: float,
        narrow: bool = False,
    ) -> Matrix:
        """act(gate) · up of a product; of `rows`, where the norm is still to be taken."""
        features = x.shape[1] // 2
        out, places = self._out(x, features, narrow)
        whole = power_of_2(features)
        block = whole if narrow else min(GLU_COLUMNS, whole)
        given, ending = self._ending(rows, bias, eps)
        self._launch(
            triton_rows.glu_kernel, (len(x), blocks_of(features, block)),
            WIDE if block <= GLU_COLUMNS else WIDEST, (x, *places, *given), FEATURES=features,
            SILU=silu, BLOCK=block, QUANTISE=narrow, PDL=self._overlap, **ending,
        )
        return out

    def _ending(
        self, rows: Rows | None, bias: Tensor | None, eps: float
    ) -> tuple[tuple[Any, ...], dict[str, int]]:
        """Return what a kernel takes that ends a product of rows before their norm, if any."""
        squares = None if rows is None else rows.squares
        given = tuple(self._none if t is None else t for t in (squares, bias))
        return (*given, eps), {
            'K': 0 if rows is None else rows.hidden.shape[1], **squares_of(squares),
            'ROWS': 0 if squares is None else squares.shape[1], 'BIAS': bias is not None,
        }

    def add_norm(
        self, x: Tensor, update: Tensor | None, bias: Tensor | None, weight: Tensor,
        shift: Tensor, eps: float,
    ) -> Tensor:
        """See Ops."""
        y = torch.empty_like(x)
        self._launch_rows(
            triton_rows.add_norm_kernel, x,
            (x, x if update is None else update, weight if bias is None else bias, weight, shift,
             y, eps),
            WIDTH=x.shape[1], BLOCK=power_of_2(x.shape[1]),
            UPDATE=update is not None,
        )
        return y

    def gelu_linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See Ops."""
        if x.device.type != 'cuda':  # Triton's interpreter
            return F.gelu(F.linear(x, weight, bias), approximate='tanh')
        return torch._addmm_activation(bias, x, weight.T, use_gelu=True)

    def _rows(self, results: tuple[Tensor, Tensor | None, Tensor | None, Any]) -> Rows:
        hidden, scaled, squares, _ = results
        return Rows(hidden, hidden if scaled is None else scaled, squares)

    def _linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False,
        gate: Tensor | None = None, residual: Tensor | None = None, scale: Tensor | None = None,
        squares: bool = False, rows: Rows | None = None, eps: float = 0.0,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Any]:
        """Launch the linear kernel. `rows`: the norm is taken of them, and float32 comes out."""
        (m, k), n, padded = x.shape, len(weight), padded_rows(len(x))
        kind = torch.float32 if rows is not None else weight.dtype
        y = torch.empty((m, n), dtype=kind, device=x.device)
        scaled = None if scale is None else torch.empty_like(y)
        raw = torch.empty_like(y) if rows is not None else None
        squares_in = None if rows is None else rows.squares

        def launch(config: Config) -> tuple[Tensor, Tensor | None, Tensor | None, Any]:
            if by_library(config):
                sums = self._float(padded).view(1, padded)
                product = self._product(x, weight)
                ended = (product, y, bias, gate, residual, scale, scaled, sums)
                self._launch_rows(
                    triton_rows.finish_kernel, y,
                    [self._none if t is None else t for t in ended],
                    WIDTH=n, BLOCK=power_of_2(n), BIAS=bias is not None, SILU=silu,
                    GATE=gate is not None, RESIDUAL=residual is not None,
                    SCALE=scale is not None,
                )
                return y, scaled, sums, raw
            block, blocks = config.rows or padded, blocks_of(n, config.columns)
            squares_out = self._float(blocks * padded).view(blocks, padded) if squares else None
            parts = config.split * padded * blocks * config.columns
            partial = self._float(parts) if config.split > 1 else self._none
            given = (squares_in, bias, gate, residual, scale, scaled, squares_out, raw)
            self._launch(
                triton_products.linear_kernel, (blocks * blocks_of(m, block), config.split),
                config,
                (x, weight, y, *(self._none if t is None else t for t in given), partial,
                 self._counters, eps),
                M=m, N=n, K=k, **squares_of(squares_in),
                BIAS=bias is not None, SILU=silu, GATE=gate is not None,
                RESIDUAL=residual is not None, SQUARES=squares, SCALE=scale is not None,
                RAW=raw is not None, ROWS=padded, BM=block, BN=config.columns,
                BK=config.depth, SPLIT=config.split,
                LINES=self._lines(blocks_of(k, config.split)),
                PDL=self._overlap and n >= config.columns, EXACT=self._exact,
            )
            return y, scaled, squares_out, raw

        return self._call('linear', (padded, n, k), launch)

    def _pair(
        self, rows: Rows, weight: Tensor, bias: Tensor | None, eps: float, shape: tuple[int, ...],
        count: int, heads: Heads | None, cache: tuple[Tensor, Tensor, Turn, Tensor] | None,
        silu: bool,
    ) -> Tensor:
        """Launch the pair kernel over `count` pairs of weight rows."""
        (m, k), padded = rows.hidden.shape, padded_rows(len(rows.hidden))
        y = torch.empty(shape, dtype=rows.hidden.dtype, device=rows.hidden.device)
        keys, values, turn, offset = cache or (y, y, Turn(y, y), y[:1])
        squares = rows.squares
        assert squares is not None

        def launch(config: Config) -> Tensor | None:
            if by_library(config):
                product = self._product(rows.scaled, weight)
                if heads is None or cache is None:
                    return self._activated(product, silu, rows, bias, eps)
                return self._turned(product, heads, cache, False, rows, bias, eps)
            block = config.rows or padded
            self._launch(
                triton_products.pair_kernel, (count // config.columns * blocks_of(m, block),),
                config,
                (rows.scaled, weight, y, keys, values, squares,
                 self._none if bias is None else bias, turn.cosine, turn.sine, offset, eps),
                M=m, K=k, **squares_of(squares), BIAS=bias is not None, ROPE=heads is not None,
                SILU=silu, FEATURES=count, HEADS=heads.query if heads else 0,
                KV_HEADS=heads.kv if heads else 0, HEAD_DIM=heads.dim if heads else 0,
                BATCH=len(offset), ROWS=padded, BM=block, BN=config.columns, BK=config.depth,
                LINES=self._lines(k), PDL=self._overlap, EXACT=self._exact,
            )
            return y

        unit = heads.dim // 2 if heads else count
        return self._call('pair', (padded, count, k, unit), launch)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        if self._compile_only:  # in another thread, which only compiles what ends the product
            return weight.new_empty((len(x), len(weight)))
        self._tape = None  # it would lack this
        return F.linear(x.to(weight.dtype), weight)

    def _float(self, count: int) -> Tensor:
        return torch.empty(count, dtype=torch.float32, device=self._device)

    def _lines(self, elements: int) -> int:
        size = torch.finfo(self._dtype).bits // 8
        return power_of_2(blocks_of(elements * size, PREFETCH_LINE))
