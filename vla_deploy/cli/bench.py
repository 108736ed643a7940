# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Time a bundle on a backend, stage by stage, over the observations that it brings.

    ros2 run vla_deploy bench BUNDLE [--iterations 100] [--backend torch_cuda:cuda:bf16:unrolled]
    ros2 run vla_deploy bench BUNDLE --compare onnx_runtime torch_cuda:cuda:bf16 [--json FILE]
    ros2 run vla_deploy bench BUNDLE --batch 8 --backend torch_cuda:cuda:bf16:unrolled

With a batch, so many observations are computed together, and times are those of all of them. A
backend is written NAME[:PROVIDER[:PRECISION[:VARIANT]]]. On a GPU there is the card's floor, too:
the least time that the weights and the arithmetic take, for as many cameras and tokens as the
observations have that were timed, on average. Exit code 0: measured. 1: measured, and a
self-test failed, so that no node would serve it. 2: an error.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.cli.output import interruptible, one_line, progress_lines, unforeseen
from vla_deploy.files import check_writable, write_bytes
from vla_deploy.pipeline import BundleError, Policy, PolicyChunk, PolicyError
from vla_deploy.pipeline.backend import BackendOptions
from vla_deploy.pipeline.bundle import FIXTURES, Bundle
from vla_deploy.pipeline.fixtures import Fixture, read_fixtures

PERCENTILES = (50, 95, 99)
STAGES = ('preprocess', 'prefix', 'sample', 'postprocess', 'total')
ONE_RUN = ('prefix', 'sample')  # of all observations that are computed together
MIB = 2**20
BYTES_PER_WEIGHT = {'fp32': 4, 'tf32': 4}  # in GPU memory; otherwise 2
STATUS = Path('/proc/self/status')


@dataclasses.dataclass(frozen=True)
class Choice:
    """A backend with its options, as BackendOptions has them."""

    backend: str
    provider: str
    precision: str
    variant: str

    def __str__(self) -> str:
        return ':'.join(dataclasses.astuple(self))


@interruptible('bench')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        check_writable(arguments.json)
        choices = arguments.compare or [arguments.backend]
        rows = _measure_all(
            arguments.bundle, choices, arguments.iterations, arguments.threads, arguments.batch
        )
        print('\n'.join(_table(rows)), flush=True)
        if arguments.json is not None:
            text = json.dumps({'bundle': str(arguments.bundle), 'rows': rows}, indent=1) + '\n'
            write_bytes(arguments.json, text.encode('ascii'))
    except (BundleError, PolicyError, OSError) as error:
        print(f'bench: {one_line(error)}', file=sys.stderr)
        return 2
    except Exception as error:  # noqa: BLE001 - said in one line, kept whole in a file
        print(f'bench: {unforeseen("bench", error)}', file=sys.stderr)
        return 2
    return 0 if all(row['self_test']['passed'] for row in rows) else 1


def _measure_all(
    bundle: Path, choices: Sequence[Choice], iterations: int, threads: int | None, batch: int
) -> list[dict[str, Any]]:
    """Measure one backend after the other; each chunk is compared with the first one's."""
    progress, rows = progress_lines('bench'), []
    first: list[NDArray[np.float32]] = []
    for choice in choices:
        progress(f'loading {choice}')
        row, chunks = _measure(bundle, choice, iterations, threads, batch)
        first = first or chunks
        pairs = zip(chunks, first, strict=True)
        # numpy's maximum of anything and NaN is NaN
        row['max_abs_to_first'] = float(np.max([np.abs(own - other).max() for own, other in pairs]))
        rows.append(row)
        gc.collect()  # the weights of this one must not lie beside those of the next
    return rows


def _measure(
    bundle: Path, choice: Choice, iterations: int, threads: int | None, batch: int
) -> tuple[dict[str, Any], list[NDArray[np.float32]]]:
    """Return the figures of a backend, and its chunks of the bundle's fixtures."""
    before = _taken_of_gpu() if choice.provider != 'cpu' else None
    begin = time.perf_counter()
    policy = Policy.load(bundle, *dataclasses.astuple(choice), threads=threads, batch=batch)
    loaded = time.perf_counter()
    test = policy.self_test()
    fixtures = read_fixtures(bundle / FIXTURES, policy.contract)
    chunks = [policy.infer(f.observation, noise=f.noise).raw for f in fixtures]
    durations: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for index in range(iterations):
        own = [fixtures[(index + slot) % len(fixtures)] for slot in range(batch)]
        start = time.perf_counter()
        made = _together(policy, own)
        durations['total'].append(time.perf_counter() - start)
        for stage in STAGES[:-1]:
            each = [getattr(chunk.timings, f'{stage}_s') for chunk in made]
            durations[stage].append(each[0] if stage in ONE_RUN else sum(each))
    stages = {
        stage: {f'p{p}_ms': 1e3 * float(np.percentile(values, p)) for p in PERCENTILES}
        for stage, values in durations.items()
    }
    row = {
        'backend': str(choice),
        'batch': batch,
        'iterations': iterations,
        'load_s': loaded - begin,
        'self_test': dataclasses.asdict(test),
        'stages': stages,
        'host_resident_MiB': _resident_bytes() / MIB,
    }
    after = None if before is None else _taken_of_gpu()
    if before is not None and after is not None:
        timed = fixtures[: iterations + batch - 1]
        seen = [policy.seen(own.observation) for own in timed]
        policy.close()  # the ceilings are measured with some GiB
        row |= {'GPU_MiB': (after - before) / MIB, **_floor(policy.bundle, row, choice, seen)}
    return row, chunks


def _together(policy: Policy, fixtures: Sequence[Fixture]) -> list[PolicyChunk]:
    """Return the chunks of some fixtures, of several in one run."""
    if len(fixtures) == 1:
        return [policy.infer(fixtures[0].observation, noise=fixtures[0].noise)]
    observations = [own.observation for own in fixtures]
    return policy.infer_batch(observations, noise=[own.noise for own in fixtures])


def _taken_of_gpu() -> int | None:
    """Return the bytes that all processes take of the card's memory; None without torch, which
    measures the card."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None  # which backend it is that needs a card will say so
    torch.cuda.empty_cache()  # what nothing uses belongs to nobody
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def _floor(
    bundle: Bundle, row: dict[str, Any], choice: Choice, seen: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Return the card and its floor for what was timed: observations of which so many cameras and
    tokens were `seen`, on average. Where it cannot be had, why: the times count without it."""
    import torch

    from vla_deploy.backends.device_errors import torch_errors
    from vla_deploy.backends.parameters import BundleParameters
    from vla_deploy.backends.roofline import measure_ceilings, phase_costs

    cameras, tokens = (round(float(np.mean(counts))) for counts in zip(*seen, strict=True))
    try:
        source = BundleParameters(bundle, torch.device('cpu'))
        source.close()
        costs = phase_costs(
            source.config, row['batch'], cameras=cameras, tokens=tokens,
            bytes_per_weight=BYTES_PER_WEIGHT.get(choice.precision, 2),
        )
        ceilings = measure_ceilings()
        card = torch.cuda.get_device_name()
    except (PolicyError, *torch_errors()) as error:
        return {'no_floor': one_line(error)}
    floor = sum(cost.floor_s(ceilings) for cost in costs.values())
    computed = row['stages']['prefix']['p50_ms'] + row['stages']['sample']['p50_ms']
    return {
        'card': card,
        'read_TB_per_s': ceilings.read_bytes_per_s / 1e12,
        'bf16_TFLOP_per_s': ceilings.flops_per_s / 1e12,
        'floor_cameras': cameras,
        'floor_tokens': tokens,
        'floor_ms': 1e3 * floor,
        'times_floor': computed / (1e3 * floor),
    }


def _resident_bytes() -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) * 1024
    raise OSError(f'{STATUS}: has no VmRSS')


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return one block of lines a backend."""
    lines = []
    for row in rows:
        test = row['self_test']
        lines += [
            f'{row["backend"]}: {row["iterations"]} times {row["batch"]} chunks, loaded in '
            f'{row["load_s"]:.1f} s, {row["host_resident_MiB"]:.0f} MiB of memory',
            f'  self-test {"passed" if test["passed"] else "FAILED"}: max_abs {test["max_abs"]!r} '
            f'(at most {test["threshold"]!r}); to the first backend {row["max_abs_to_first"]!r}',
            '  stage            p50 ms     p95 ms     p99 ms',
        ]
        lines += [
            f'  {stage:12s}' + ''.join(f' {figures[f"p{p}_ms"]:10.3f}' for p in PERCENTILES)
            for stage, figures in row['stages'].items()
        ]
        if 'floor_ms' in row:
            lines.append(
                f'  {row["times_floor"]:.2f} x the floor of {row["card"]} for '
                f'{row["floor_cameras"]} cameras and {row["floor_tokens"]} tokens, '
                f'{row["floor_ms"]:.3f} ms'
            )
        if 'no_floor' in row:
            lines.append(f'  no floor of the card: {row["no_floor"]}')
        if 'GPU_MiB' in row:
            lines.append(f'  {row["GPU_MiB"]:.0f} MiB of the card\'s memory')
    return lines


def _choice(text: str) -> Choice:
    defaults = BackendOptions()
    parts = text.split(':')
    given = (parts + [''] * 4)[:4]
    if len(parts) > 4 or not given[0]:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not NAME[:PROVIDER[:PRECISION[:VARIANT]]]'
        )
    return Choice(
        given[0], given[1] or defaults.provider, given[2] or defaults.precision,
        given[3] or defaults.variant,
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1')
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='bench', description='Time a bundle on a backend.')
    parser.add_argument('bundle', type=Path, metavar='BUNDLE', help='folder that export wrote')
    parser.add_argument('--iterations', type=_positive, default=100, metavar='N',
                        help='how often chunks are timed (100)')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--backend', type=_choice, default=_choice('onnx_runtime'),
                       metavar='NAME[:PROVIDER[:PRECISION[:VARIANT]]]',
                       help='what is timed (onnx_runtime:cpu:fp32:split)')
    which.add_argument('--compare', type=_choice, nargs='+', metavar='BACKEND',
                       help='several, one after the other, with how far their chunks are apart')
    parser.add_argument('--batch', type=_positive, default=1, metavar='N',
                        help='observations that are computed together (1); several only by '
                        'torch_cuda with variant unrolled, as torch_cuda:cuda:bf16:unrolled')
    parser.add_argument('--threads', type=int, metavar='N', help='threads of the backend')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures here')
    return parser


if __name__ == '__main__':
    sys.exit(main())
