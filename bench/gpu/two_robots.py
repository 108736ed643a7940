# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How long two robots wait for one another on one GPU, each with a process of its own.

    python bench/gpu/two_robots.py OUTPUT.json [--model smolvla] [--chunks 200]
        [--periods-ms 50,53] [--folder FOLDER]

First one of them computes its chunks alone, then both at once, at periods that differ a little, so
that their phases drift through one another. Some chunks are undisturbed then: none of the other is
computed meanwhile. All else is told in those, by their median. A chunk waits at most for what it
takes longer than that, and for as long as those of the other are computed meanwhile that end first.
Returns 1 where one waited for more than one. What a chunk took longer is told besides: it is its
wait and what the machine delays it, as it now and then does one that is undisturbed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from _weights_file import bundle_of, config_of, write_weights  # noqa: E402

from vla_deploy.models.published import PUBLISHED  # noqa: E402

Chunks = list[tuple[float, float]]
"""When each was asked for and done, in seconds of a clock that processes share."""

MOST_CHUNKS = 1.0
WARM_CHUNKS = 20
LOAD_S = 300.0
_barrier: Barrier  # of a robot's process


def main() -> int:
    """Measure one robot, then two; write and print what a chunk took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('output', type=Path)
    parser.add_argument('--model', default='smolvla', choices=sorted(PUBLISHED))
    parser.add_argument('--chunks', type=int, default=200, help='of each robot (200)')
    parser.add_argument(
        '--periods-ms', type=_two, default=(50.0, 53.0), help='of the two robots (50,53)'
    )
    parser.add_argument(
        '--folder', type=Path, default=Path(tempfile.gettempdir()), help='for the weights'
    )
    arguments = parser.parse_args()
    periods_s = [period * 1e-3 for period in arguments.periods_ms]
    folder = arguments.folder / f'robots_{arguments.model}'
    write_weights(arguments.model, folder)
    (alone,) = _robots(folder, periods_s[:1], arguments.chunks)
    together = _robots(folder, periods_s, arguments.chunks)
    end_s = min(robot[-1][1] for robot in together)  # after it there is but one
    one, other = ([chunk for chunk in robot if chunk[1] <= end_s] for robot in together)
    free = undisturbed(one, other) + undisturbed(other, one)
    if not free:
        given = ','.join(f'{period:g}' for period in arguments.periods_ms)
        parser.error(f'--periods-ms {given}: too short, no chunk is undisturbed')
    chunk_s = float(np.median(_took_s(free)))
    wait_s = max(*waits_s(one, other, chunk_s), *waits_s(other, one, chunk_s))
    figures: dict[str, Any] = {
        'model': arguments.model,
        'periods_ms': arguments.periods_ms,
        'alone_ms': _percentiles_ms(alone),
        'undisturbed_ms': _percentiles_ms(free),
        'undisturbed': len(free),
        'together_ms': _percentiles_ms(one + other),
        'longest_wait_chunks': wait_s / chunk_s,
        'longest_wait_and_delay_chunks': max(_took_s(one + other)) / chunk_s - 1.0,
        'longest_delay_chunks': max(_took_s(free)) / chunk_s - 1.0,
    }
    arguments.output.write_text(json.dumps(figures, indent=1) + '\n')
    print(json.dumps(figures, indent=1))
    return 0 if wait_s <= MOST_CHUNKS * chunk_s else 1


def _two(text: str) -> tuple[float, float]:
    try:
        one, other = map(float, text.split(','))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text}: give two, one for each robot') from error
    return one, other


def undisturbed(robot: Chunks, other: Chunks) -> Chunks:
    """Return the chunks of a robot during which none of the other was computed."""
    return [
        (asked, done)
        for asked, done in robot
        if all(ended <= asked or done <= begun for begun, ended in other)
    ]


def waits_s(robot: Chunks, other: Chunks, chunk_s: float) -> list[float]:
    """Return for how long at most each chunk of a robot waited for the other one's: for what it
    took longer than `chunk_s`, and while those were computed, meanwhile, that ended first."""
    return [
        min(
            max(0.0, done - asked - chunk_s),
            sum(ended - max(begun, asked) for begun, ended in other if asked < ended <= done),
        )
        for asked, done in robot
    ]


def _took_s(robot: Chunks) -> list[float]:
    return [done - asked for asked, done in robot]


def _percentiles_ms(robot: Chunks) -> dict[str, float]:
    return {
        name: float(np.percentile(_took_s(robot), at)) * 1e3
        for name, at in (('p50', 50), ('p95', 95), ('p99', 99), ('max', 100))
    }


def _robots(folder: Path, periods_s: list[float], chunks: int) -> list[Chunks]:
    """Return the chunks of robots that begin together, a process each."""
    context = multiprocessing.get_context('spawn')
    barrier = context.Barrier(len(periods_s))
    with ProcessPoolExecutor(len(periods_s), context, _begin_together, (barrier,)) as pool:
        robots = [pool.submit(_robot, folder, period_s, chunks) for period_s in periods_s]
        return [robot.result() for robot in robots]


def _begin_together(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _robot(folder: Path, period_s: float, chunks: int) -> Chunks:
    """Compute a chunk each period, from arrays on the host to one there; return when it was."""
    from vla_deploy.backends import torch_cuda
    from vla_deploy.pipeline.backend import BackendOptions, ModelInputs

    options = BackendOptions(provider='cuda', precision='bf16', variant='unrolled')
    backend = torch_cuda.load(bundle_of(folder), options)
    inputs, noise = _observation(folder)
    for _ in range(WARM_CHUNKS):
        backend.whole(ModelInputs(*inputs), noise)
    _barrier.wait(LOAD_S)
    done: Chunks = []
    begin = time.perf_counter()
    for count in range(chunks):
        time.sleep(max(0.0, begin + count * period_s - time.perf_counter()))
        asked = time.perf_counter()
        backend.whole(ModelInputs(*inputs), noise)
        done.append((asked, time.perf_counter()))
    return done


def _observation(folder: Path) -> tuple[list[Any], Any]:
    """Return arrays as ModelInputs takes them, and noise: every camera, the longest text."""
    import torch
    from _reference import random_inputs

    found = random_inputs(config_of(folder), torch.device('cpu'), seed=0)
    *seen, noise = (value[0].numpy() for value in found)
    return seen, noise


if __name__ == '__main__':
    sys.exit(main())
