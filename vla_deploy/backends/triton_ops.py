# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The operations of the torch backend on Triton kernels; `torch_ops` says what they compute.

The rows of an Euler step are few (M ≤ 128), so that one block of rows covers them and time goes
into reading weights. Wide products of prefix and vision tower are left to cuBLAS.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from vla_deploy.backends import triton_attention, triton_products, triton_rows
from vla_deploy.backends.cuda_graph import SideStream
from vla_deploy.backends.torch_ops import Heads, Inline, Rows, Side, Turn
from vla_deploy.backends.triton_tuning import Recorded, compiled, measure_each, refine
from vla_deploy.backends.tuning import Config, Tuning

MAX_ROWS = 128
MIN_ROWS = 64  # of a matrix instruction
MAX_COUNTERS = 8192
PREFETCH_LINE = 128
POINTER_ALIGNMENT = 16  # bytes, which kernels are compiled for where a pointer has it
TOKEN_STEP = 8
COMPILING_S = 0.05  # what was compiled before takes less to load
PLAIN = Config(rows=1, columns=0, depth=0, split=1, warps=4, stages=1)
NARROW, WIDE = (dataclasses.replace(PLAIN, warps=warps) for warps in (1, 8))
NARROW_COLUMNS = 1024  # of a row that one warp takes, which then waits for no other
Result = TypeVar('Result')


class TritonOps:
    """See `torch_ops.Ops`. Calls must come from one thread and on one stream."""

    def __init__(self, device: torch.device, dtype: torch.dtype, tuning: Tuning, overlap: bool):
        """`overlap`: kernels start while the one before still runs (Hopper and later)."""
        self.tuning, self._overlap = tuning, overlap
        self._exact = dtype == torch.float32
        self._dtype, self._device = dtype, device
        # the next kernel follows another stream, and may not start before what it follows ends
        self._apart = False
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None
        self._counters = torch.zeros(MAX_COUNTERS, dtype=torch.int32, device=device)
        self._none = torch.zeros(16, dtype=dtype, device=device)
        self._recorded: dict[str, Recorded] | None = None
        self._compile_only = False
        # by what a call is, the compiled kernel and its constants in their order
        self._compiled: dict[tuple[Any, ...], tuple[Any, list[Any]]] = {}
        self._woken = ThreadPoolExecutor(1).submit(self._wake)

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

    def _set_apart(self) -> None:
        self._apart = True

    def join(self, first: Rows, second: Rows) -> Rows:
        """See Ops."""
        hidden = torch.cat((first.hidden, second.hidden))
        count, block = len(first.hidden), _row_block(len(hidden))
        parts = max(len(first.squares), len(second.squares))  # blocks of columns may differ
        squares = torch.zeros((parts, block), dtype=torch.float32, device=self._device)
        squares[: len(first.squares), :count] = first.squares[:, :count]
        squares[: len(second.squares), count : len(hidden)] = second.squares[
            :, : len(second.hidden)
        ]
        return Rows(hidden, hidden, squares)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, length: Tensor, extra: int, mode: int
    ) -> Tensor:
        """See Ops."""
        tokens, heads, dim = queries.shape
        kv = keys.shape[1]
        out = torch.empty((tokens, heads * dim), dtype=queries.dtype, device=queries.device)

        def launch(config: Config) -> Tensor:
            blocks = triton.cdiv(tokens * heads // kv, config.rows)
            parts = config.split * tokens * heads if config.split > 1 else 1
            partial, stats = self._float(parts * dim), self._float(2 * parts)
            self._launch(
                triton_attention.attention_kernel, (blocks, kv, config.split), config,
                (queries, keys, values, out, length, partial, stats, dim**-0.5),
                TOKENS=tokens, EXTRA=extra, MODE=mode, HEADS=heads, KV_HEADS=kv, HEAD_DIM=dim,
                BM=config.rows, BN=config.columns, SPLIT=config.split,
                PREFETCH=tokens <= MAX_ROWS, PDL=self._overlap, EXACT=self._exact,
            )
            if config.split > 1:
                self._launch(
                    triton_attention.merge_kernel, (tokens * heads,), PLAIN, (partial, stats, out),
                    ROWS=tokens * heads, HEAD_DIM=dim, SPLIT=config.split, PDL=self._overlap,
                )
            return out

        near = triton.cdiv(tokens, TOKEN_STEP) * TOKEN_STEP  # with a state token or without
        return self._call('attention', (near, heads, kv, dim), launch)

    def norm(self, x: Tensor, eps: float, parts: Tensor | None = None) -> Tensor:
        """See Ops."""
        y = torch.empty_like(x)
        self._launch_rows(
            triton_rows.norm_kernel, x, (x, x if parts is None else parts, y, eps),
            WIDTH=x.shape[1], BLOCK=triton.next_power_of_2(x.shape[1]),
            PARTS=0 if parts is None else len(parts), TOTAL=0 if parts is None else x.numel(),
        )
        return y

    def rope(
        self, qkv: Tensor, heads: Heads, turn: Turn, keys: Tensor, values: Tensor, keys_only: bool
    ) -> Tensor | None:
        """See Ops."""
        queries = qkv.new_empty((len(qkv), heads.query, heads.dim))
        count = heads.rows // heads.dim
        self._launch_rows(
            triton_rows.rope_kernel, qkv,
            (qkv, queries, keys, values, turn.cosine, turn.sine),
            HEADS=heads.query, KV_HEADS=heads.kv, HEAD_DIM=heads.dim,
            BH=triton.next_power_of_2(count), KEYS_ONLY=keys_only,
        )
        return None if keys_only else queries

    def activate(self, x: Tensor, silu: bool) -> Tensor:
        """See Ops."""
        rows, features = len(x), x.shape[1] // 2
        out = x.new_empty((rows, features))
        block = min(2048, triton.next_power_of_2(features))
        self._launch(
            triton_rows.glu_kernel, (rows, triton.cdiv(features, block)), WIDE, (x, out),
            FEATURES=features, SILU=silu, BLOCK=block, PDL=self._overlap,
        )
        return out

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
            WIDTH=x.shape[1], BLOCK=triton.next_power_of_2(x.shape[1]),
            UPDATE=update is not None,
        )
        return y

    def gelu_linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See Ops."""
        if x.device.type != 'cuda':  # Triton's interpreter
            return F.gelu(F.linear(x, weight, bias), approximate='tanh')
        return torch._addmm_activation(bias, x, weight.T, use_gelu=True)

    def _wake(self) -> None:
        """Let Triton read itself, which it does once to tell what it compiled before: 0.4 s, in
        which weights can be read."""
        if self._device.type == 'cuda':
            triton_rows.glu_kernel.warmup(
                self._none, self._none, FEATURES=8, SILU=True, BLOCK=8, PDL=False, grid=(1,)
            )

    def tune(
        self, run: Callable[[], Any], step: Callable[[], Any], quiet: Callable[[], None]
    ) -> None:
        """Time every candidate of every kernel that `run` calls and whose sizes have none yet,
        in a CUDA graph over all its calls; then the best few of each within a whole `step`,
        where kernels overlap with others. `quiet` is called before something is timed."""
        self._woken.result()
        recorded = self._record(run)
        missing = {key: found for key, found in recorded.items() if not self.tuning.knows(key)}
        if not missing:
            return
        quiet()
        self._compile_only = True
        built = compiled(missing, self._dtype)
        self._compile_only = False
        measure_each(missing, built, self.tuning)
        refine([key for key in self._record(step) if key in missing], step, self.tuning)

    def _record(self, run: Callable[[], Any]) -> dict[str, Recorded]:
        self._recorded = {}
        run()
        recorded, self._recorded = self._recorded, None
        return recorded

    def _rows(self, results: tuple[Tensor, Tensor | None, Tensor | None, Any]) -> Rows:
        hidden, scaled, squares, _ = results
        return Rows(hidden, hidden if scaled is None else scaled, squares)

    def _linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False,
        gate: Tensor | None = None, residual: Tensor | None = None, scale: Tensor | None = None,
        squares: bool = False, rows: Rows | None = None, eps: float = 0.0,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Any]:
        """Launch the linear kernel. `rows`: the norm is taken of them, and float32 comes out."""
        (m, k), n = x.shape, len(weight)
        block = _row_block(m)
        kind = torch.float32 if rows is not None else weight.dtype
        y = torch.empty((m, n), dtype=kind, device=x.device)
        scaled = None if scale is None else torch.empty_like(y)
        raw = torch.empty_like(y) if rows is not None else None
        squares_in = None if rows is None else rows.squares

        def launch(config: Config) -> tuple[Tensor, Tensor | None, Tensor | None, Any]:
            blocks = triton.cdiv(n, config.columns)
            squares_out = self._float(blocks * block).view(blocks, block) if squares else None
            parts = config.split * block * blocks * config.columns
            partial = self._float(parts) if config.split > 1 else self._none
            given = (squares_in, bias, gate, residual, scale, scaled, squares_out, raw)
            self._launch(
                triton_products.linear_kernel, (blocks, config.split), config,
                (x, weight, y, *(self._none if t is None else t for t in given), partial,
                 self._counters, eps),
                M=m, N=n, K=k, **_blocks(squares_in),
                BIAS=bias is not None, SILU=silu, GATE=gate is not None,
                RESIDUAL=residual is not None, SQUARES=squares, SCALE=scale is not None,
                RAW=raw is not None, BM=block, BN=config.columns, BK=config.depth,
                SPLIT=config.split, LINES=self._lines(triton.cdiv(k, config.split)),
                PDL=self._overlap and n >= config.columns, EXACT=self._exact,
            )
            return y, scaled, squares_out, raw

        return self._call('linear', (block, n, k), launch)

    def _pair(
        self, rows: Rows, weight: Tensor, bias: Tensor | None, eps: float, shape: tuple[int, ...],
        count: int, heads: Heads | None, cache: tuple[Tensor, Tensor, Turn, Tensor] | None,
        silu: bool,
    ) -> Tensor:
        """Launch the pair kernel over `count` pairs of weight rows."""
        (m, k), block = rows.hidden.shape, _row_block(len(rows.hidden))
        y = torch.empty(shape, dtype=rows.hidden.dtype, device=rows.hidden.device)
        keys, values, turn, offset = cache or (y, y, Turn(y, y), y)
        squares = rows.squares
        assert squares is not None

        def launch(config: Config) -> Tensor:
            self._launch(
                triton_products.pair_kernel, (count // config.columns,), config,
                (rows.scaled, weight, y, keys, values, squares,
                 self._none if bias is None else bias, turn.cosine, turn.sine, offset, eps),
                M=m, K=k, **_blocks(squares), BIAS=bias is not None, ROPE=heads is not None,
                SILU=silu, FEATURES=count, HEADS=heads.query if heads else 0,
                KV_HEADS=heads.kv if heads else 0, HEAD_DIM=heads.dim if heads else 0,
                BM=block, BN=config.columns, BK=config.depth, LINES=self._lines(k),
                PDL=self._overlap, EXACT=self._exact,
            )
            return y

        unit = heads.dim // 2 if heads else count
        return self._call('pair', (block, count, k, unit), launch)

    def _call(
        self, kind: str, sizes: tuple[int, ...], launch: Callable[[Config], Result]
    ) -> Result:
        key = '-'.join([kind, *map(str, sizes)])
        if self._recorded is not None:
            found = self._recorded.setdefault(key, Recorded(kind, sizes, []))
            if not self.tuning.knows(key):  # a call holds on to all that it reads and writes
                found.calls.append(launch)
        return launch(self.tuning.get(key, kind, sizes, self._dtype))

    def _launch(
        self, kernel: Any, grid: tuple[int, ...], config: Config, arguments: tuple[Any, ...],
        **constants: Any,
    ) -> None:
        constants |= {'num_warps': config.warps, 'num_stages': config.stages}
        if self._apart:
            constants['PDL'], self._apart = False, False
        elif self._overlap:
            constants['launch_pdl'] = True
        if self._compile_only:
            kernel.warmup(*arguments, grid=grid, **constants)
            return
        # Triton would look at each argument and constant again to find what it compiled
        key = (id(kernel), *constants.values(), *map(_kind, arguments))
        if key in self._compiled:
            compiled, values = self._compiled[key]
            compiled[(*grid, 1, 1)[:3]](*arguments, *values)
            return
        begin = time.perf_counter()
        compiled = kernel[grid](*arguments, **constants)
        if time.perf_counter() - begin > COMPILING_S:
            gc.collect(1)  # what compiling leaves behind, which refers to itself
        if compiled is not None:  # as in Triton's interpreter
            compiled.asm.clear()  # texts of what it was made from
            names = kernel.arg_names[len(arguments):]
            self._compiled[key] = compiled, [constants[name] for name in names]

    def _launch_rows(self, kernel: Any, x: Tensor, arguments: Any, **constants: Any) -> None:
        """Launch a kernel of one row a program."""
        config = NARROW if x.shape[1] <= NARROW_COLUMNS else PLAIN
        self._launch(kernel, (len(x),), config, arguments, PDL=self._overlap, **constants)

    def _float(self, count: int) -> Tensor:
        return torch.empty(count, dtype=torch.float32, device=self._device)

    def _lines(self, elements: int) -> int:
        size = torch.finfo(self._dtype).bits // 8
        return triton.next_power_of_2(triton.cdiv(elements * size, PREFETCH_LINE))


def _kind(argument: Any) -> Any:
    """Return what Triton compiles an argument of a kernel by."""
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % POINTER_ALIGNMENT == 0
    return type(argument)


def _blocks(squares: Tensor | None) -> dict[str, int]:
    count = 0 if squares is None else len(squares)
    return {'BLOCKS': count, 'PADDED': triton.next_power_of_2(max(1, count))}


def _row_block(rows: int) -> int:
    if rows > MAX_ROWS:
        raise ValueError(f'{rows} rows, but a step has at most {MAX_ROWS}')
    return max(MIN_ROWS, triton.next_power_of_2(rows))
