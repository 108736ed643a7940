# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How Triton's kernels are launched: overlapped with the one before, and by what was compiled."""

from __future__ import annotations

import dataclasses
import gc
import time
from typing import Any

from torch import Tensor

from vla_deploy.backends.tuning import Config

POINTER_ALIGNMENT = 16  # bytes, which kernels are compiled for where a pointer has it
COMPILING_S = 0.05  # what was compiled before takes less to load
PLAIN = Config(rows=1, columns=0, depth=0, split=1, warps=4, stages=1)
NARROW, WIDE, WIDEST = (dataclasses.replace(PLAIN, warps=warps) for warps in (1, 8, 16))
NARROW_COLUMNS = 1024  # of a row that one warp takes, which then waits for no other


class Launcher:
    """Launches kernels, or compiles them only."""

    def __init__(self, overlap: bool) -> None:
        """`overlap`: kernels start while the one before still runs (Hopper and later)."""
        self._overlap = overlap
        # the next kernel follows another stream, and may not start before what it follows ends
        self._apart = False
        self._compile_only = False
        # by what a call is, the compiled kernel and its constants in their order
        self._compiled: dict[tuple[Any, ...], tuple[Any, list[Any]]] = {}

    def _set_apart(self) -> None:
        self._apart = True

    def _launch(
        self, kernel: Any, grid: tuple[int, ...], config: Config, arguments: tuple[Any, ...],
        **constants: Any,
    ) -> None:
        constants |= {'num_warps': config.warps, 'num_stages': config.stages}
        if self._apart:
            constants['PDL'], self._apart = False, False
        elif constants.get('PDL'):  # a kernel that waits itself, and no other, may start early
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


def blocks_of(count: int, size: int) -> int:
    """Return how many blocks of a size hold so many. Triton's own takes several times as long: it
    asks each number whether it is one that a kernel is compiled with."""
    return -(-count // size)


def power_of_2(count: int) -> int:
    """Return the smallest power of 2 that is not less than a positive number; see `blocks_of`."""
    return 1 << (count - 1).bit_length()


def squares_of(squares: Tensor | None) -> dict[str, int]:
    """Return in how many parts a kernel finds the sums of squares."""
    count = 0 if squares is None else len(squares)
    return {'BLOCKS': count, 'PADDED': power_of_2(max(1, count))}


def sharing(rows: int, offset: Tensor) -> dict[str, int]:
    """Return how the rows are shared by observations; of one alone their number stays open, so
    that one kernel serves any."""
    count = len(offset)
    return {'BATCH': count, 'TOKENS': rows // count if count > 1 else 0}


def _kind(argument: Any) -> Any:
    """Return what Triton compiles an argument of a kernel by."""
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % POINTER_ALIGNMENT == 0
    return type(argument)
