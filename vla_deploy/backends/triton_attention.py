# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Triton kernels for attention; see `triton_products` for how kernels overlap."""

from __future__ import annotations

import triton
import triton.language as tl

from vla_deploy.backends.triton_products import LINE_BYTES

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LOWEST: tl.constexpr = tl.constexpr(-1.0e30)


@triton.jit
def _prefetch_keys(
    keys, values, start, end, group, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BN: tl.constexpr,
):
    """Ask for BN rows of keys and of values to come to the L2 cache."""
    per_line: tl.constexpr = LINE_BYTES // (keys.dtype.element_ty.primitive_bitwidth // 8)
    rows = tl.minimum(start + tl.arange(0, BN), end - 1)
    columns = tl.arange(0, (HEAD_DIM + per_line - 1) // per_line) * per_line  # one, if shorter
    at = (rows[:, None] * KV_HEADS + group) * HEAD_DIM + columns[None, :]
    for cache in tl.static_range(2):
        tl.inline_asm_elementwise(
            'prefetch.global.L2 [$1]; mov.b32 $0, 0;',
            '=r,l',
            [(keys if cache == 0 else values) + at],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def attention_kernel(
    queries, keys, values, out, length, partial, stats, scale,
    TOKENS: tl.constexpr, EXTRA: tl.constexpr, MODE: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BATCH: tl.constexpr,
    CACHE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SPLIT: tl.constexpr,
    PREFETCH: tl.constexpr, PDL: tl.constexpr, EXACT: tl.constexpr,
):
    """Attention with the query heads of one key head folded into its rows.

    grid (row blocks, KV_HEADS · BATCH, SPLIT): BATCH observations, each with TOKENS queries, CACHE
    keys and a length. Keys 0...length + EXTRA; MODE 0: all of them, 1: query
    token i sees length + i + 1, 2: all but the last, which only query token length - 1 sees, 3:
    all of them, but token 0 only the first length + 1. With SPLIT > 1 the parts are left for
    `merge_kernel`: sums [SPLIT,BATCH·TOKENS,HEADS,HEAD_DIM], and their largest score and weight.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    pm, group, ps = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    observation = 0
    if BATCH > 1:
        observation, group = group // KV_HEADS, group % KV_HEADS
        keys += observation * CACHE * KV_HEADS * HEAD_DIM
        values += observation * CACHE * KV_HEADS * HEAD_DIM
    FOLD: tl.constexpr = HEADS // KV_HEADS
    rows = pm * BM + tl.arange(0, BM)
    token = rows // FOLD
    head = group * FOLD + rows % FOLD
    live = rows < TOKENS * FOLD
    rd = tl.arange(0, HEAD_DIM)
    valid = tl.load(length + observation)
    total = valid + EXTRA
    if MODE == 1:
        limit = valid + token + 1
    elif MODE == 2:
        limit = tl.where(token == valid - 1, valid, valid - 1)
    elif MODE == 3:
        limit = tl.where(token == 0, valid + 1, total)
    else:
        limit = tl.zeros((BM,), tl.int32) + total
    first = observation * TOKENS
    at_rows = ((first + token[:, None]) * HEADS + head[:, None]) * HEAD_DIM + rd[None, :]
    span = tl.cdiv(tl.cdiv(total, SPLIT), BN) * BN
    begin = ps * span
    end = tl.minimum(begin + span, total)
    if PDL:
        if PREFETCH:
            for start in range(begin, end, BN):
                _prefetch_keys(keys, values, start, end, group, KV_HEADS, HEAD_DIM, BN)
        tl.extra.cuda.gdc_wait()
    q = tl.load(queries + at_rows, mask=live[:, None], other=0.0)
    best = tl.zeros((BM,), tl.float32) + LOWEST
    weight = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, HEAD_DIM), tl.float32)
    for start in range(begin, end, BN):
        rn = start + tl.arange(0, BN)
        at = (rn[:, None] * KV_HEADS + group) * HEAD_DIM + rd[None, :]
        k = tl.load(keys + at, mask=rn[:, None] < total, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision='ieee' if EXACT else 'tf32')
        scores = tl.where(rn[None, :] < limit[:, None], scores * (scale * LOG2_E), LOWEST)
        now = tl.maximum(best, tl.max(scores, axis=1))
        p = tl.exp2(scores - now[:, None])
        shrink = tl.exp2(best - now)
        weight = weight * shrink + tl.sum(p, axis=1)
        v = tl.load(values + at, mask=rn[:, None] < total, other=0.0)
        acc = acc * shrink[:, None]
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision='ieee' if EXACT else 'tf32')
        best = now
    if SPLIT == 1:
        tl.store(out + at_rows, (acc / weight[:, None]).to(out.dtype.element_ty),
                 mask=live[:, None])
    else:
        at_rows = (ps * BATCH * TOKENS + first + token) * HEADS + head
        tl.store(partial + at_rows[:, None] * HEAD_DIM + rd[None, :], acc, mask=live[:, None])
        tl.store(stats + 2 * at_rows, best, mask=live)
        tl.store(stats + 2 * at_rows + 1, weight, mask=live)


@triton.jit
def merge_kernel(
    partial, stats, out, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, SPLIT: tl.constexpr,
    PDL: tl.constexpr,
):
    """Join the SPLIT parts of attention; grid (ROWS), a head of a token a program."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row, part, rd = tl.program_id(0), tl.arange(0, SPLIT), tl.arange(0, HEAD_DIM)
    at = part * ROWS + row
    mixed = tl.load(partial + at[:, None] * HEAD_DIM + rd[None, :])
    best, weight = tl.load(stats + 2 * at), tl.load(stats + 2 * at + 1)
    share = tl.exp2(best - tl.max(best, axis=0))
    value = tl.sum(mixed * share[:, None], axis=0) / tl.sum(weight * share, axis=0)
    tl.store(out + row * HEAD_DIM + rd, value.to(out.dtype.element_ty))
