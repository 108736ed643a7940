# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Measures which configurations the kernels of `triton_ops` run fastest with on the current card.

First each kernel by itself, in a CUDA graph over all its calls of a chunk; then, of those that an
Euler step calls, the best few within whole steps, where kernels overlap with others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import triton

from vla_deploy.backends.triton_launch import SpillsError
from vla_deploy.backends.tuning import Config, Tuning, candidates

COMPILE_THREADS = 12
REFINED = 8  # candidates of a kernel that are tried in the real sequence
ROUNDS, STEPS, REPLAYS = 2, 2, 10


@dataclasses.dataclass
class Recorded:
    """Calls of one kernel with one set of sizes, to be timed with other configurations."""

    kind: str
    sizes: tuple[int, ...]
    calls: list[Callable[[Config], Any]]


def compiled(
    recorded: Mapping[str, Recorded], dtype: torch.dtype, index: int | None
) -> dict[str, list[Config]]:
    """Return the candidates of each kernel that fit the GPU of that index, compiled; calls only
    compile. Those that spill registers are candidates only where all do."""
    options = {key: candidates(r.kind, r.sizes, dtype) for key, r in recorded.items()}
    with ThreadPoolExecutor(COMPILE_THREADS) as pool:
        fits = {
            key: list(pool.map(lambda c, k=key: _fits(recorded[k].calls[0], c, index), found))
            for key, found in options.items()
        }
    return {
        key: [c for c, fit in zip(found, fits[key], strict=True) if fit == max([1, *fits[key]])]
        for key, found in options.items()
    }


def measure_each(
    recorded: Mapping[str, Recorded], options: Mapping[str, Sequence[Config]], tuning: Tuning
) -> None:
    """Time every option of every kernel by itself, and keep them in order."""
    for key, found in recorded.items():
        timed = [(_time_ms(found.calls, option), option) for option in options[key]]
        tuning.set(key, _in_order(timed))
        tuning.calls[key] = len(found.calls)


def refine(keys: Sequence[str], step: Callable[[], Any], tuning: Tuning) -> None:
    """Time the best few options of each kernel within steps, the others as they are by then."""
    for _ in range(ROUNDS):
        for key in keys:
            measured, timed = tuning.timings[key], []
            for _, option in measured[:REFINED]:
                tuning.set(key, [(0.0, option)])
                timed.append((_time_ms([lambda _: step()] * STEPS, option), option))
            tuning.set(key, _in_order(timed) + measured[REFINED:])


def _in_order(timed: list[tuple[float, Config]]) -> list[tuple[float, Config]]:
    return sorted(timed, key=lambda pair: pair[0])


def _fits(call: Callable[[Config], Any], config: Config, index: int | None) -> int:
    """Say whether a configuration fits the GPU, whose shared memory and registers are short:
    2, or 1 where it spills registers, or 0."""
    try:
        with torch.cuda.device(-1 if index is None else index):  # the thread's own may be another
            call(config)
    except (triton.runtime.errors.OutOfResources, triton.compiler.errors.CompilationError):
        return 0
    except SpillsError:
        return 1
    return 2


def _time_ms(calls: list[Callable[[Config], Any]], config: Config) -> float:
    """Return milliseconds of all calls by graph replay; infinity where it cannot be launched."""
    try:
        calls[0](config)
    except triton.runtime.errors.OutOfResources:
        return float('inf')
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call(config)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    best = float('inf')
    for _ in range(REPLAYS):
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end))
    return best
