# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Triton kernels that take a row a program: norms, rotation, the gate of an MLP, and what ends a
product that was left to cuBLAS. With QUANTISE a row comes out in 8 bits, see `quantised`."""

from __future__ import annotations

import triton
import triton.language as tl

from vla_deploy.backends.quantised import LARGEST, SMALLEST
from vla_deploy.backends.triton_products import gelu, place_of, silu

_LARGEST: tl.constexpr = tl.constexpr(LARGEST)
_SMALLEST: tl.constexpr = tl.constexpr(SMALLEST)


@triton.jit
def _rms(
    squares, row, eps, K: tl.constexpr, BLOCKS: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Return 1 / rms of a row of K elements from its BLOCKS partial sums of squares."""
    block = tl.arange(0, PADDED)
    sums = tl.load(squares + block * ROWS + row, mask=block < BLOCKS, other=0.0)
    return tl.rsqrt(tl.sum(sums, axis=0) / K + eps)


@triton.jit
def _store_row(y, scales, row, at, inside, value, QUANTISE: tl.constexpr):
    """Store a row, with QUANTISE a whole one; its elements that are not `inside` are 0."""
    if QUANTISE:
        largest = tl.maximum(tl.max(tl.abs(value), axis=0), _SMALLEST)
        tl.store(scales + row, largest / _LARGEST)
        value = value * (_LARGEST / largest)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def finish_kernel(
    product, y, bias, gate, residual, scale, scaled, squares,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, BIAS: tl.constexpr, SILU: tl.constexpr,
    GATE: tl.constexpr, RESIDUAL: tl.constexpr, SCALE: tl.constexpr, PDL: tl.constexpr,
):
    """y = residual + gate · act(product + bias), y · scale, and the sum of squares of a row."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    at = row * WIDTH + column
    value = tl.load(product + at, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        value += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        value = silu(value)
    if GATE:
        value = value * tl.load(gate + column, mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        value += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    rounded = value.to(y.dtype.element_ty)
    tl.store(y + at, rounded, mask=inside)
    value = tl.where(inside, rounded.to(tl.float32), 0.0)
    tl.store(squares + row, tl.sum(value * value, axis=0))
    if SCALE:
        factor = tl.load(scale + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(scaled + at, (value * factor).to(y.dtype.element_ty), mask=inside)


@triton.jit
def norm_kernel(
    x, parts, y, scales, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
    TOTAL: tl.constexpr, QUANTISE: tl.constexpr, PDL: tl.constexpr
):
    """x += the PARTS parts of TOTAL elements each, and y = x / rms(x), a row a program; the
    learned scale is in the weights that follow."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    at = row * WIDTH + column
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if PARTS > 0:
        for part in tl.static_range(PARTS):
            value += tl.load(parts + part * TOTAL + at, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + at, rounded, mask=inside)
        value = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=0) / WIDTH + eps)
    _store_row(y, scales, row, at, inside, value * scale, QUANTISE)


@triton.jit
def add_norm_kernel(
    x, update, bias, weight, shift, y, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    UPDATE: tl.constexpr, PDL: tl.constexpr,
):
    """x += update + bias, and y = layer norm of the new x; a row a program."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    value = tl.load(x + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    if UPDATE:
        value += tl.load(update + row * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
        value += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + row * WIDTH + column, rounded, mask=inside)
        value = rounded.to(tl.float32)
    mean = tl.sum(value, axis=0) / WIDTH
    centered = tl.where(inside, value - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centered * centered, axis=0) / WIDTH + eps)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    low = tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * WIDTH + column, (centered * scale * gain + low).to(y.dtype.element_ty),
             mask=inside)


@triton.jit
def rope_kernel(
    qkv, queries, keys, values, cosine, sine, offset, squares, bias, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BH: tl.constexpr,
    BATCH: tl.constexpr, TOKENS: tl.constexpr, KEYS_ONLY: tl.constexpr, K: tl.constexpr,
    BLOCKS: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Split the product [rows,(HEADS + 2·KV_HEADS)·HEAD_DIM] of one row a program; keys and
    values of each of BATCH observations, TOKENS rows each, go to rows offset... of their caches,
    where its cosines and sines are, too. KEYS_ONLY: the product has no queries. With BLOCKS the
    norm of the product's rows is still to be taken, and then its bias."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    half: tl.constexpr = HEAD_DIM // 2
    rd = tl.arange(0, half)
    place = row if BATCH == 1 else place_of(row, offset, TOKENS, BATCH)
    cos = tl.load(cosine + place * half + rd)[None, :]
    sin = tl.load(sine + place * half + rd)[None, :]
    kind = keys.dtype.element_ty
    first_key: tl.constexpr = 0 if KEYS_ONLY else HEADS
    heads: tl.constexpr = first_key + 2 * KV_HEADS
    head = tl.arange(0, BH)
    source = qkv + (row * heads + head[:, None]) * HEAD_DIM + rd[None, :]
    there = (head[:, None] < heads) & (rd[None, :] >= 0)
    a = tl.load(source, mask=there, other=0.0).to(tl.float32)
    b = tl.load(source + half, mask=there, other=0.0).to(tl.float32)
    if BLOCKS > 0:
        rms = _rms(squares, row, eps, K, BLOCKS, PADDED, ROWS)
        a, b = a * rms, b * rms
    if BIAS:
        from_bias = bias + head[:, None] * HEAD_DIM + rd[None, :]
        a += tl.load(from_bias, mask=there, other=0.0).to(tl.float32)
        b += tl.load(from_bias + half, mask=there, other=0.0).to(tl.float32)
    turned_a, turned_b = a * cos - b * sin, b * cos + a * sin
    if not KEYS_ONLY:
        is_query = head[:, None] < HEADS
        at = queries + (row * HEADS + head[:, None]) * HEAD_DIM + rd[None, :]
        tl.store(at, turned_a.to(kind), mask=there & is_query)
        tl.store(at + half, turned_b.to(kind), mask=there & is_query)
    own = head[:, None] - first_key
    is_key = (own >= 0) & (own < KV_HEADS)
    at = keys + (place * KV_HEADS + own) * HEAD_DIM + rd[None, :]
    tl.store(at, turned_a.to(kind), mask=there & is_key)
    tl.store(at + half, turned_b.to(kind), mask=there & is_key)
    is_value = own >= KV_HEADS
    at = values + (place * KV_HEADS + own - KV_HEADS) * HEAD_DIM + rd[None, :]
    tl.store(at, a.to(kind), mask=there & is_value)
    tl.store(at + half, b.to(kind), mask=there & is_value)


@triton.jit
def glu_kernel(
    x, y, scales, squares, bias, eps, FEATURES: tl.constexpr, SILU: tl.constexpr,
    BLOCK: tl.constexpr, K: tl.constexpr, BLOCKS: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, BIAS: tl.constexpr, QUANTISE: tl.constexpr, PDL: tl.constexpr,
):
    """y = act(gate) · up of x [rows,2·FEATURES]; grid (rows, FEATURES / BLOCK), with QUANTISE one
    block a row. With BLOCKS the norm of the product's rows is still to be taken, and then its
    bias."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row, column = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < FEATURES
    gate = tl.load(x + row * 2 * FEATURES + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * FEATURES + FEATURES + column, mask=inside, other=0.0)
    up = up.to(tl.float32)
    if BLOCKS > 0:
        rms = _rms(squares, row, eps, K, BLOCKS, PADDED, ROWS)
        gate, up = gate * rms, up * rms
    if BIAS:
        gate += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
        up += tl.load(bias + FEATURES + column, mask=inside, other=0.0).to(tl.float32)
    active = silu(gate) if SILU else gelu(gate)
    _store_row(y, scales, row, row * FEATURES + column, inside, active * up, QUANTISE)
