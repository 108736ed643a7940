# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What several threads do for a start: some wait for libraries, another one makes modules.

Libraries and kernels are loaded outside Python, so that another thread can run it meanwhile. The
tower's attention has a plan for its sizes for each thread: the one that captures makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from vla_deploy.backends.fused_inputs import Config
from vla_deploy.backends.fused_layers import attend, patches
from vla_deploy.backends.fused_policy import FusedPolicy
from vla_deploy.backends.parameters import BundleParameters
from vla_deploy.backends.torch_ops import Ops

Result = TypeVar('Result')
ANY_SIZE = 64  # rows and columns of a product that is for its library's sake, nobody reads it


class Beside:
    """Another thread, which runs one function after the other, in inference mode and on the
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
    """Give another thread, which is done, or begins nothing more, at the end. A product in it
    makes a handle of cuBLAS and a workspace (16 MiB on Hopper), which go to the next thread that
    asks for one when this one has ended."""
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

    With a stream, which is the current one, another thread makes it, meanwhile this one finds how
    the tower's attention of so many cameras is computed, and a third one loads cuBLAS. `mlp_dtype`:
    see `fused_layers.Layer`.
    """
    asked = (source, dtype, ops, batch, mlp_dtype)
    if stream is None:
        policy = _ask(*asked)
    else:
        made = loaded = None
        try:
            with beside(stream) as second, beside(stream) as third:
                made = second.run(_ask, *asked)
                loaded = third.run(_multiply, dtype, source.device)
                _attend(source.config, cameras, dtype, source.device)
                loaded.result()
                policy = made.result()
        finally:
            del made, loaded  # which refer to what was raised, and that to this frame
    source.close()
    return policy


def _ask(
    source: BundleParameters, dtype: torch.dtype, ops: Ops, batch: int,
    mlp_dtype: torch.dtype | None,
) -> FusedPolicy:
    """Make a policy, and begin to read what it asked for."""
    policy = FusedPolicy(source.config, source, dtype, ops, batch, mlp_dtype)
    source.begin()
    return policy


def _multiply(dtype: torch.dtype, device: torch.device) -> None:
    """Load cuBLAS; `current_blas_handle` would keep the interpreter meanwhile."""
    some = torch.zeros((ANY_SIZE, ANY_SIZE), dtype=dtype, device=device)
    torch.mm(some, some)


def _attend(config: Config, cameras: int, dtype: torch.dtype, device: torch.device) -> None:
    """Let this thread plan the tower's attention, which takes as long as loading cuBLAS."""
    vision = config.vision
    rows = cameras * patches(vision, (config.image_height, config.image_width))
    size = (rows, 3 * vision.hidden_size)
    attend(torch.zeros(size, dtype=dtype, device=device), cameras, vision)
