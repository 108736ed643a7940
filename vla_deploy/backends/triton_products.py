# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Triton kernels for products of few rows. `triton_ops` launches these and those beside them.

Up to 128 rows are one block; more, of several observations at a time, are blocks that stand side
by side in the grid, so that a block of weights is read from memory once for all of them. Sums of
squares have ROWS places for each block of columns, at least as many as there are rows.

All sizes are compile-time constants, since a policy has few. Where `PDL` is set, a kernel starts
while those before still run: it lets the next one start, asks for its weights to be brought to the
L2 cache, and waits for the results of the one before only then (programmatic dependent launch,
Hopper and later). As each kernel waits so, all before the one that it waits for are done, too.
Lengths and offsets are read before that: a full dependency lies between them and the first step.
Every sum is taken in a fixed order, so that equal inputs give equal bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

LINE_BYTES: tl.constexpr = tl.constexpr(128)


@triton.jit
def _prefetch_rows(
    weight, first_row, first_column, K: tl.constexpr, BN: tl.constexpr, LINES: tl.constexpr
):
    """Ask for LINES lines of each of BN rows of K elements to come to the L2 cache."""
    rows = first_row + tl.arange(0, BN)
    per_line: tl.constexpr = LINE_BYTES // (weight.dtype.element_ty.primitive_bitwidth // 8)
    columns = tl.minimum(first_column + tl.arange(0, LINES) * per_line, K - 1)
    tl.inline_asm_elementwise(
        'prefetch.global.L2 [$1]; mov.b32 $0, 0;',
        '=r,l',
        [weight + rows[:, None] * K + columns[None, :]],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def _load_squares(
    squares, row, BLOCKS: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr
):
    """Return the partial sums of squares of some rows, all loads in flight at once."""
    block = tl.arange(0, PADDED)
    inside = (block[:, None] < BLOCKS) & (row[None, :] < ROWS)
    return tl.load(squares + block[:, None] * ROWS + row[None, :], mask=inside, other=0.0)


@triton.jit
def place_of(row, offset, TOKENS: tl.constexpr, BATCH: tl.constexpr):
    """Return where rows lie in a cache, when those of each of BATCH observations begin at its
    offset; rows beyond the last observation get a place, too."""
    if BATCH == 1:
        place = tl.load(offset) + row
    else:
        place = tl.load(offset + tl.minimum(row // TOKENS, BATCH - 1)) + row % TOKENS
    return place


@triton.jit
def gelu(x):
    """Tanh form of GELU, by the exponential: tanh(u) = 1 - 2 / (exp(2u) + 1)."""
    u = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    return 0.5 * x * (2.0 - 2.0 / (tl.exp(2.0 * u) + 1.0))


@triton.jit
def silu(x):
    return x / (1.0 + tl.exp(-x))


@triton.jit
def _finish_linear(
    acc, parts, before, rm, rn, pn, y, bias, gate, scale, scaled, squares_out, raw, eps,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BLOCKS: tl.constexpr,
    BIAS: tl.constexpr, SILU: tl.constexpr, GATE: tl.constexpr, RESIDUAL: tl.constexpr,
    SQUARES: tl.constexpr, SCALE: tl.constexpr, RAW: tl.constexpr, ROWS: tl.constexpr,
):
    inside = (rm[:, None] < M) & (rn[None, :] < N)
    at = rm[:, None] * N + rn[None, :]
    if BLOCKS > 0:
        acc = acc * tl.rsqrt(tl.sum(parts, axis=0) / K + eps)[:, None]
    if BIAS:
        acc += tl.load(bias + rn, mask=rn < N, other=0.0).to(tl.float32)[None, :]
    if SILU:
        acc = silu(acc)
    if RAW:
        tl.store(raw + at, acc, mask=inside)
    if GATE:
        acc = acc * tl.load(gate + rn, mask=rn < N, other=0.0).to(tl.float32)[None, :]
    if RESIDUAL:
        acc += before.to(tl.float32)
    value = acc.to(y.dtype.element_ty)
    tl.store(y + at, value, mask=inside)
    if SQUARES:
        rounded = tl.where(inside, value.to(tl.float32), 0.0)
        tl.store(squares_out + pn * ROWS + rm, tl.sum(rounded * rounded, axis=1))
    if SCALE:
        factor = tl.load(scale + rn, mask=rn < N, other=0.0).to(tl.float32)
        product = value.to(tl.float32) * factor[None, :]
        tl.store(scaled + at, product.to(scaled.dtype.element_ty), mask=inside)


@triton.jit
def linear_kernel(
    x, weight, y, squares_in, bias, gate, residual, scale, scaled, squares_out, raw, partial,
    counters, eps,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BLOCKS: tl.constexpr,
    PADDED: tl.constexpr, BIAS: tl.constexpr, SILU: tl.constexpr, GATE: tl.constexpr,
    RESIDUAL: tl.constexpr, SQUARES: tl.constexpr, SCALE: tl.constexpr, RAW: tl.constexpr,
    ROWS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr,
    LINES: tl.constexpr, PDL: tl.constexpr, EXACT: tl.constexpr,
):
    """y[M,N] = epilogue(x[M,K] · weight[N,K]ᵀ); grid (N / BN · M / BM, SPLIT).

    With SPLIT > 1 each program sums a part of K; the last of a block adds all parts, in
    their order, and takes the epilogue.
    """
    pid, ps = tl.program_id(0), tl.program_id(1)
    blocks: tl.constexpr = tl.cdiv(M, BM)
    pn = pid // blocks
    span: tl.constexpr = tl.cdiv(tl.cdiv(K, BK), SPLIT) * BK
    even: tl.constexpr = (K % (BK * SPLIT) == 0) and (N % BN == 0)
    rm, rn = pid % blocks * BM + tl.arange(0, BM), pn * BN + tl.arange(0, BN)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        _prefetch_rows(weight, tl.minimum(pn * BN, N - BN), ps * span, K, BN, LINES)
        tl.extra.cuda.gdc_wait()
    parts, before = 0.0, 0.0  # what the end needs is on its way while the sum is taken
    if BLOCKS > 0:
        parts = _load_squares(squares_in, rm, BLOCKS, PADDED, ROWS)
    if RESIDUAL:
        inside = (rm[:, None] < M) & (rn[None, :] < N)
        before = tl.load(residual + rm[:, None] * N + rn[None, :], mask=inside, other=0.0)
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, span, BK):
        rk = ps * span + start + tl.arange(0, BK)
        a = tl.load(
            x + rm[:, None] * K + rk[None, :],
            mask=(rm[:, None] < M) & (rk[None, :] < K), other=0.0,
        ).to(weight.dtype.element_ty)
        if even:
            b = tl.load(weight + rn[:, None] * K + rk[None, :])
        else:
            b = tl.load(
                weight + rn[:, None] * K + rk[None, :],
                mask=(rn[:, None] < N) & (rk[None, :] < K), other=0.0,
            )
        acc = tl.dot(a, tl.trans(b), acc, input_precision='ieee' if EXACT else 'tf32')
    if SPLIT == 1:
        _finish_linear(
            acc, parts, before, rm, rn, pn, y, bias, gate, scale, scaled, squares_out, raw, eps,
            M, N, K, BLOCKS, BIAS, SILU, GATE, RESIDUAL, SQUARES, SCALE, RAW, ROWS,
        )
    else:
        width = tl.num_programs(0) // blocks * BN
        at = rm[:, None] * width + rn[None, :]
        tl.store(partial + ps * ROWS * width + at, acc)
        tl.debug_barrier()  # all of this program's part is written before it is counted
        if tl.atomic_add(counters + pid, 1, sem='acq_rel') == SPLIT - 1:
            tl.store(counters + pid, 0)
            total = tl.zeros((BM, BN), tl.float32)
            for part in tl.static_range(SPLIT):
                total += tl.load(partial + part * ROWS * width + at, cache_modifier='.cg')
            _finish_linear(
                total, parts, before, rm, rn, pn, y, bias, gate, scale, scaled, squares_out, raw,
                eps, M, N, K, BLOCKS, BIAS, SILU, GATE, RESIDUAL, SQUARES, SCALE, RAW, ROWS,
            )


@triton.jit
def pair_kernel(
    x, weight, y, keys, values, squares_in, bias, cosine, sine, offset, eps,
    M: tl.constexpr, K: tl.constexpr, BLOCKS: tl.constexpr, PADDED: tl.constexpr,
    BIAS: tl.constexpr, ROPE: tl.constexpr, SILU: tl.constexpr, FEATURES: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BATCH: tl.constexpr,
    ROWS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    LINES: tl.constexpr, PDL: tl.constexpr, EXACT: tl.constexpr,
):
    """Products with two blocks of weight rows that belong together; grid (pairs of blocks ·
    M / BM).

    ROPE: weight [(HEADS + 2·KV_HEADS)·HEAD_DIM, K]; the halves of a head, which rotate together.
    Queries go to y [M,HEADS,HEAD_DIM], keys and values of each of BATCH observations to rows
    offset... of their caches, where its cosines and sines are, too.
    Else: weight [2·FEATURES, K], gates over ups; y [M,FEATURES] = act(gate) · up.
    """
    blocks: tl.constexpr = tl.cdiv(M, BM)
    pid = tl.program_id(0) // blocks
    rm = tl.program_id(0) % blocks * BM + tl.arange(0, BM)
    if ROPE:
        half: tl.constexpr = HEAD_DIM // 2
        head = pid // (half // BN)
        column = (pid % (half // BN)) * BN
        first = head * HEAD_DIM + column
        second = first + half
    else:
        half: tl.constexpr = FEATURES
        head = 0
        column = pid * BN
        first = column
        second = FEATURES + column
    rn = tl.arange(0, BN)
    row = rm
    if ROPE:
        row = place_of(rm, offset, M // BATCH, BATCH)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        _prefetch_rows(weight, first, 0, K, BN, LINES)
        _prefetch_rows(weight, second, 0, K, BN, LINES)
        tl.extra.cuda.gdc_wait()
    parts = _load_squares(squares_in, rm, BLOCKS, PADDED, ROWS)
    acc1 = tl.zeros((BM, BN), tl.float32)
    acc2 = tl.zeros((BM, BN), tl.float32)
    even: tl.constexpr = K % BK == 0
    for start in range(0, K, BK):
        rk = start + tl.arange(0, BK)
        a = tl.load(
            x + rm[:, None] * K + rk[None, :],
            mask=(rm[:, None] < M) & (rk[None, :] < K), other=0.0,
        )
        at = rn[:, None] * K + rk[None, :]
        if even:
            b1 = tl.load(weight + first * K + at)
            b2 = tl.load(weight + second * K + at)
        else:
            b1 = tl.load(weight + first * K + at, mask=rk[None, :] < K, other=0.0)
            b2 = tl.load(weight + second * K + at, mask=rk[None, :] < K, other=0.0)
        acc1 = tl.dot(a, tl.trans(b1), acc1, input_precision='ieee' if EXACT else 'tf32')
        acc2 = tl.dot(a, tl.trans(b2), acc2, input_precision='ieee' if EXACT else 'tf32')
    rms = tl.rsqrt(tl.sum(parts, axis=0) / K + eps)[:, None]
    acc1, acc2 = acc1 * rms, acc2 * rms
    if BIAS:
        acc1 += tl.load(bias + first + rn).to(tl.float32)[None, :]
        acc2 += tl.load(bias + second + rn).to(tl.float32)[None, :]
    inside = (rm[:, None] < M) & (rn[None, :] >= 0)
    kind = y.dtype.element_ty
    if ROPE:
        turn = row[:, None] * half + column + rn[None, :]
        in_keys = head >= HEADS
        in_values = head >= HEADS + KV_HEADS
        cos = tl.load(cosine + turn, mask=inside, other=0.0)
        sin = tl.load(sine + turn, mask=inside, other=0.0)
        turned1 = acc1 * cos - acc2 * sin
        turned2 = acc2 * cos + acc1 * sin
        if in_values:
            at = (row[:, None] * KV_HEADS + head - HEADS - KV_HEADS) * HEAD_DIM + column + rn
            tl.store(values + at, acc1.to(kind), mask=inside)
            tl.store(values + at + half, acc2.to(kind), mask=inside)
        elif in_keys:
            at = (row[:, None] * KV_HEADS + head - HEADS) * HEAD_DIM + column + rn
            tl.store(keys + at, turned1.to(kind), mask=inside)
            tl.store(keys + at + half, turned2.to(kind), mask=inside)
        else:
            at = (rm[:, None] * HEADS + head) * HEAD_DIM + column + rn
            tl.store(y + at, turned1.to(kind), mask=inside)
            tl.store(y + at + half, turned2.to(kind), mask=inside)
    else:
        active = silu(acc1) if SILU else gelu(acc1)
        tl.store(y + rm[:, None] * FEATURES + column + rn, (active * acc2).to(kind), mask=inside)
