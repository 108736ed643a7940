# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What two threads do for a start: one waits for libraries to load, the other one makes modules.

Libraries and kernels are loaded outside Python, so that another thread can run it meanwhile. They
are loaded in the thread that captures afterwards: cuBLAS has a handle, and the tower's attention a
plan for its sizes, for each thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

from vla_deploy.backends.fused_inputs import Inputs, bucket_of
from vla_deploy.backends.fused_layers import Tower
from vla_deploy.backends.fused_policy import FusedPolicy
from vla_deploy.backends.fused_stacks import Stacks
from vla_deploy.backends.parameters import BundleParameters
from vla_deploy.backends.product_ops import ProductOps
from vla_deploy.backends.torch_ops import Ops

Result = TypeVar('Result')
ANY_SIZE = 64  # rows and columns of a product that is for its library's sake, nobody reads it


class Beside:
    """A second thread, which runs one function after the other, in inference mode and on the
    stream that is its maker's current one: the same memory serves both."""

    def __init__(self, pool: ThreadPoolExecutor, stream: torch.cuda.Stream | None) -> None:
        self._pool, self._stream = pool, stream

    def run(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Return what a function will have returned, or raised."""
        return self._pool.submit(self._on_stream, function, *arguments)

    @torch.inference_mode()
    def _on_stream(self, function: Callable[..., Result], *arguments: Any) -> Result:
        # not before all functions: the executor would hide why the thread cannot begin
        if self._stream is not None:
            torch.cuda.set_stream(self._stream)
        return function(*arguments)


@contextmanager
def beside(stream: torch.cuda.Stream | None) -> Iterator[Beside]:
    """Give a second thread, which is done, or begins nothing more, at the end. A product in it
    would take a workspace of its own (16 MiB on Hopper), which torch would keep."""
    pool = ThreadPoolExecutor(1, 'beside')
    try:
        yield Beside(pool, stream)
    finally:
        pool.shutdown(cancel_futures=True)


def make_policy(
    source: BundleParameters, dtype: torch.dtype, ops: Ops, batch: int, cameras: int,
    stream: torch.cuda.Stream | None, mlp_dtype: torch.dtype | None = None,
) -> FusedPolicy:
    """Return a policy, whose parameters are asked for and are being read.

    With a stream, which is the current one, another thread makes its stacks; this one runs the
    tower's products and attention, of so many cameras, as soon as there is a tower. `mlp_dtype`:
    see `fused_layers.Layer`.
    """
    config = source.config
    stacks = None
    if stream is not None:
        stacks = _make_stacks(source, dtype, mlp_dtype, ops, cameras, stream)
    policy = FusedPolicy(config, source, dtype, ops, batch, mlp_dtype, stacks)
    source.close()
    return policy


def _make_stacks(
    source: BundleParameters, dtype: torch.dtype, mlp_dtype: torch.dtype | None, ops: Ops,
    cameras: int, stream: torch.cuda.Stream,
) -> Stacks:
    tower: Future[Tower] = Future()
    stacks = None
    try:
        with beside(stream) as other:
            stacks = other.run(_ask, source, dtype, mlp_dtype, tower)
            stacks.add_done_callback(partial(_tell, tower))
            # any product makes cuBLAS's handle; `current_blas_handle` would keep the interpreter
            some = torch.zeros((ANY_SIZE, ANY_SIZE), dtype=dtype, device=source.device)
            torch.mm(some, some)
            bucket = bucket_of(source.config, cameras, 1)
            images = Inputs.empty(source.config, bucket, dtype, source.device).images
            tower.result().run(ProductOps(ops), images)
            return stacks.result()
    finally:
        del stacks, tower  # which refer to what was raised, and that to this frame


def _ask(
    source: BundleParameters, dtype: torch.dtype, mlp_dtype: torch.dtype | None,
    tower: Future[Tower],
) -> Stacks:
    """Make stacks, whose tower comes first, and begin to read what they asked for."""
    made = Stacks(source.config, source, dtype, mlp_dtype, tower.set_result)
    source.begin()
    return made


def _tell(tower: Future[Tower], stacks: Future[Stacks]) -> None:
    """Let who waits for a tower know that there will be none."""
    if stacks.cancelled():  # before it began
        tower.cancel()
        return
    error = stacks.exception()
    if error is not None and not tower.done():
        tower.set_exception(error)
