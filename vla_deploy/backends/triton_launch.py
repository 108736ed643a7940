# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How Triton's kernels are launched: overlapped with the one before, and by what was compiled."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from vla_deploy.backends.torch_ops import Again
from vla_deploy.backends.tuning import Config

POINTER_ALIGNMENT = 16  # bytes, which kernels are compiled for where a pointer has it
PLAIN = Config(rows=1, columns=0, depth=0, split=1, warps=4, stages=1)
NARROW, WIDE, WIDEST = (dataclasses.replace(PLAIN, warps=warps) for warps in (1, 8, 16))
NARROW_COLUMNS = 1024  # of a row that one warp takes, which then waits for no other
# Registers of a thread. Once it was launched the driver keeps room for every thread that the card
# can run, 69 MB for as many as these on an H200, until the process ends.
MOST_SPILLED = 64
LOADING = threading.Lock()  # one kernel can be several candidates'

Result = TypeVar('Result')
Launch = Callable[[tuple[int, int, int], Sequence[Any]], object]
# of a kernel, arguments, constants, and the kinds of arguments
Find = Callable[[Any, Sequence[Any], dict[str, Any], Sequence[Any]], Launch]


def by_call(
    kernel: Any, _arguments: Sequence[Any], constants: dict[str, Any], _kinds: Sequence[Any]
) -> Launch:
    """Return what lets Triton find, at each call, what to launch."""
    return lambda grid, given: kernel[grid](*given, **constants)


class SpillsError(Exception):
    """A compiled kernel keeps in memory what there were no registers for."""


def refuse_spills(compiled: Any) -> None:
    """Load a kernel that Triton has compiled; raises SpillsError where it spills much, and Triton's
    OutOfResources where it does not fit the card."""
    with LOADING:
        compiled._init_handles()  # loads it, which says how much it spills
    if compiled.n_spills > MOST_SPILLED:
        raise SpillsError(f'{compiled.name} spills {compiled.n_spills} registers')


class Tape:
    """What was launched, in its order, with what was given; it keeps that."""

    def __init__(self) -> None:
        self.launches: list[tuple[Launch, tuple[int, int, int], Sequence[Any]]] = []

    def again(self, instead: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Launch the same with tensors of the same kind instead of others; each of the others must
        have been given."""
        by, seen = {id(old): new for old, new in instead}, set()
        for launch, grid, arguments in self.launches:
            given = [by.get(id(own), own) for own in arguments]
            seen.update(by.keys() & map(id, arguments))
            launch(grid, given)
        if len(seen) < len(by):
            raise RuntimeError('what is to be replaced was not given to any kernel')


class Launcher:
    """Launches kernels, or compiles them only."""

    def __init__(self, overlap: bool) -> None:
        """`overlap`: kernels start while the one before still runs (Hopper and later)."""
        self._overlap = overlap
        # the next kernel follows another stream, and may not start before what it follows ends
        self._apart = False
        self._compile_only = False
        self._find: Find = by_call
        self._compiled: dict[tuple[Any, ...], Launch] = {}  # by what a call is
        self._tape: Tape | None = None

    def recorded(self, run: Callable[[], Result]) -> tuple[Result, Again | None]:
        """See Ops."""
        self._tape = tape = Tape()
        try:
            result = run()
            complete = self._tape is tape
        finally:
            self._tape = None
        return result, tape.again if complete else None

    def _set_apart(self) -> None:
        self._apart = True

    def _launch(
        self, kernel: Any, grid: tuple[int, ...], config: Config, arguments: Sequence[Any],
        **constants: Any,
    ) -> None:
        constants |= {'num_warps': config.warps, 'num_stages': config.stages}
        if self._apart:
            constants['PDL'], self._apart = False, False
        elif constants.get('PDL'):  # a kernel that waits itself, and no other, may start early
            constants['launch_pdl'] = True
        if self._compile_only:
            refuse_spills(kernel.warmup(*arguments, grid=grid, **constants))
            return
        # Triton would look at each argument and constant again to find what it compiled
        kinds = (*map(_kind, arguments),)
        key = (id(kernel), *constants.values(), *kinds)
        launch = self._compiled.get(key)
        if launch is None:
            launch = self._compiled[key] = self._find(kernel, arguments, constants, kinds)
        whole = (*grid, 1, 1)[:3]
        launch(whole, arguments)
        if self._tape is not None:
            self._tape.launches.append((launch, whole, arguments))

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
