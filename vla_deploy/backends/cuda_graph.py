# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Functions without arguments, captured as CUDA graphs in one pool of memory; a second stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import torch

Result = TypeVar('Result')


class Captured(Generic[Result]):
    """A function that reads and writes tensors of fixed places; calling replays it.

    The result's tensors are the same ones at every call.
    """

    def __init__(
        self, function: Callable[[], Result], rehearsal: Callable[[], Any] | None, pool: Any,
        stream: torch.cuda.Stream, multiplies: bool = True,
    ) -> None:
        """Run the rehearsal, then capture the function, both on `stream`.

        rehearsal: launches each kernel of the function, since its first launch loads it, which
        cannot be captured; None where all were launched before. `multiplies`: it leaves products
        to cuBLAS. A stream has a workspace of its own for these (16 MiB on Hopper).
        """
        stream.wait_stream(torch.cuda.current_stream())
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):
            if rehearsal is not None:
                rehearsal()
            if multiplies:
                # cuBLAS has a handle for each thread, which cannot be made within a capture:
                # another thread may have launched the kernels before
                torch.cuda.current_blas_handle()
            # torch.cuda.graph would give all free memory back to the driver first, every time;
            # what other threads do meanwhile, such as reading weights, is their own affair
            self._graph.capture_begin(pool, capture_error_mode='thread_local')
            try:
                self._result = function()
            except BaseException:
                # a capture that something made invalid cannot be ended either: what did counts
                with suppress(RuntimeError):
                    self._graph.capture_end()
                raise
            self._graph.capture_end()
        # what replays this writes where the rehearsal wrote
        torch.cuda.current_stream().wait_stream(stream)

    def __call__(self) -> Result:
        """Replay on the current stream."""
        self._graph.replay()
        return self._result


class Captures:
    """Captures functions, one after the other: graphs that never run at the same time, which share
    a stream and a pool of memory."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        """Without a stream, functions stay what they are."""
        self._stream = stream
        self._pool = None if stream is None else torch.cuda.graph_pool_handle()

    def of(
        self, function: Callable[[], Result], rehearsal: Callable[[], Any] | None = None,
        multiplies: bool = True,
    ) -> Callable[[], Result]:
        """Return a function captured; see Captured."""
        if self._stream is None:
            return function
        try:
            return Captured(function, rehearsal, self._pool, self._stream, multiplies)
        except BaseException:
            # no other capture can begin in the pool of one that did not end
            self._pool = torch.cuda.graph_pool_handle()
            raise


class SideStream:
    """A stream beside the current one; see `torch_ops.Side`. Captured, it is a branch of the graph.
    """

    def __init__(self, stream: torch.cuda.Stream, crossed: Callable[[], None]) -> None:
        """`crossed` is called where one stream begins to follow the other."""
        self._own, self._main, self._crossed = stream, torch.cuda.current_stream(), crossed

    @contextmanager
    def behind(self) -> Iterator[None]:
        """See Side."""
        self._own.wait_stream(self._main)
        self._crossed()
        with torch.cuda.stream(self._own):
            yield

    def __enter__(self) -> SideStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """See Side."""
        if kind is None:
            self._join()
        else:  # what comes of a device that fails is not to hide why it does
            with suppress(RuntimeError):
                self._join()

    def _join(self) -> None:
        self._main.wait_stream(self._own)
        self._crossed()
