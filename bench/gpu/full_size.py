# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The torch backend at full size on a GPU, random weights: parity, times, floor, kernels.

    python bench/gpu/full_size.py OUTPUT.json [--models pi0,pi05,smolvla] [--replays 1000]
        [--batch 8] [--precision fp8]

With a batch, observations with texts of several lengths are computed together as well. At fp8 the
error is held to a larger multiple of the same, that of the plain modules at bf16; floor and limit
are those of products in bf16.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from _reference import in_dtype, plain_chunk, random_inputs, random_policy  # noqa: E402

from vla_deploy.backends import torch_cuda  # noqa: E402
from vla_deploy.backends.fused_inputs import bucket_of  # noqa: E402
from vla_deploy.backends.fused_policy import FusedPolicy  # noqa: E402
from vla_deploy.backends.parameters import ModuleParameters  # noqa: E402
from vla_deploy.backends.roofline import (  # noqa: E402
    Ceilings,
    measure_ceilings,
    median_s,
    phase_costs,
    product_rate,
)
from vla_deploy.backends.torch_device import limit_workspace, make_ops, own_stream  # noqa: E402
from vla_deploy.backends.tuning import cache_path  # noqa: E402
from vla_deploy.core.contract import TimeEmbedding  # noqa: E402
from vla_deploy.models.published import PUBLISHED  # noqa: E402
from vla_deploy.pipeline.backend import ModelInputs  # noqa: E402

DTYPE = torch.bfloat16
SEEDS = 2
STEPPED = 20  # replays, at most, that are computed step by step as well
SHORTER = 5  # tokens: by so many are texts of different lengths apart
REST_S = 0.2
SHOWN = 6  # of the configurations that were measured
# Of the error of what serves, to that of the plain modules at bf16. At fp8 1.92 was measured on an
# H200 (pi0).
MOST_RATIO = {'bf16': 1.25, 'fp8': 3.0}
HIDDEN = ('kernels', 'tuned', 'tuning_file', 'together')


def main() -> int:
    """Measure and write; returns 1 where parity or equality of graph and eager fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('output', type=Path)
    parser.add_argument('--models', default='pi0,pi05,smolvla')
    parser.add_argument('--replays', type=int, default=1000, help='of the first model')
    parser.add_argument('--other-replays', type=int, default=1000)
    parser.add_argument('--batch', type=int, default=1, help='observations together (1)')
    parser.add_argument('--precision', choices=tuple(MOST_RATIO), default='bf16')
    arguments = parser.parse_args()
    limit_workspace()
    torch.backends.cudnn.allow_tf32 = False  # float32 is the reference
    ceilings = measure_ceilings()
    figures: dict[str, Any] = {
        'precision': arguments.precision,
        'card': torch.cuda.get_device_name(),
        'torch': torch.__version__,
        'read_TB_per_s': ceilings.read_bytes_per_s / 1e12,
        'bf16_TFLOP_per_s': ceilings.flops_per_s / 1e12,
        'models': {},
    }
    print(json.dumps(figures), flush=True)
    replays = arguments.replays
    for name in arguments.models.split(','):
        figures['models'][name] = _measure(
            name, ceilings, replays, arguments.batch, arguments.precision
        )
        replays = arguments.other_replays
        arguments.output.write_text(json.dumps(figures, indent=1) + '\n')
        gc.collect()  # the backend is part of a cycle
        torch.cuda.empty_cache()
    good = all(model['passed'] for model in figures['models'].values())
    return 0 if good else 1


def _measure(
    name: str, ceilings: Ceilings, replays: int, batch: int, precision: str
) -> dict[str, Any]:
    config, device = PUBLISHED[name], torch.device('cuda')
    begin = time.perf_counter()
    module = random_policy(config, device)
    contract = SimpleNamespace(
        time_embedding=TimeEmbedding(
            module.time_table.shape[1], config.min_period, config.max_period
        ),
        denoise_steps=config.num_steps,
        cameras=range(config.camera_slots),
    )
    seeds = [
        random_inputs(config, device, seed, shorter=max(0, seed + 1 - SEEDS) * SHORTER)
        for seed in range(max(SEEDS, batch))
    ]
    exact = [plain_chunk(module, torch.float32, inputs) for inputs in seeds]
    plain_module = in_dtype(module, DTYPE)
    plain = [plain_chunk(plain_module, DTYPE, inputs) for inputs in seeds]
    del plain_module
    torch.cuda.empty_cache()
    with torch.inference_mode(), own_stream(True) as stream:
        source = ModuleParameters(module, device)
        policy = FusedPolicy(
            config, source, DTYPE, make_ops(device, DTYPE), batch,
            torch_cuda.MLP_DTYPES.get(precision),
        )
        del module, source
        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()  # what else there is: weights, keys and values
        torch.cuda.empty_cache()
        weights = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        print(f'{name}: built in {time.perf_counter() - begin:.1f} s', flush=True)
        begin = time.perf_counter()
        backend = torch_cuda.serve(policy, contract, True, stream, lambda: None)
    print(f'{name}: tuned and captured in {time.perf_counter() - begin:.1f} s', flush=True)
    peak = torch.cuda.max_memory_allocated()
    eager = torch_cuda.TorchCudaBackend(policy, contract, unrolled=True, stream=None)
    arrays = [_arrays(inputs) for inputs in seeds]
    served = [backend.whole(*own) for own in arrays]
    largest = bucket_of(config, config.camera_slots, config.max_tokens)
    figures: dict[str, Any] = {
        'parity': _parity(exact, plain, served),
        'chunk_sha256': hashlib.sha256(served[0].tobytes()).hexdigest(),
        'equal_to_eager': _replays(backend, eager, config, largest, range(replays)),
        'weights_GB': weights / 1e9,
        'peak_GB': peak / 1e9,
        'peak_of_weights': peak / weights,
        **_times(policy, backend, config, ceilings, arrays[:1]),
        'kernels': _kernels(backend, largest),
        'tuned': {
            f'{key} x{policy.ops.tuning.calls[key]}': [
                [round(ms, 4), str(option)] for ms, option in timed[:SHOWN]
            ]
            for key, timed in policy.ops.tuning.timings.items()
        },
    }
    if batch > 1:
        together = largest._replace(observations=batch)
        found = backend.several(*zip(*arrays[:batch], strict=True))
        figures['together'] = {
            'batch': batch,
            'parity': _parity(exact[:batch], plain[:batch], found),
            **_alone_and_together(backend, arrays[:batch], served, found),
            'equal_to_eager': _replays(backend, eager, config, together, range(replays // 10)),
            **_times(policy, backend, config, ceilings, arrays[:batch]),
            'kernels': _kernels(backend, together),
        }
    if policy.ops.tuning.changed:
        tuning_file = cache_path(torch.cuda.get_device_name(), DTYPE)
        figures['tuning_file'] = json.loads(tuning_file.read_text())
    results = [figures, *([figures['together']] if batch > 1 else [])]
    figures['passed'] = all(_passed(own, MOST_RATIO[precision]) for own in results)
    for key, rows in figures['tuned'].items():
        print('  tuned', key, rows[:2], flush=True)
    for own in results:
        shown = {k: v for k, v in own.items() if k not in HIDDEN}
        print(name, json.dumps(shown, indent=1), flush=True)
        for row in own['kernels'][:16]:
            print(f'  {row["us"]:9.1f} us {row["count"]:5d} x {row["name"][:90]}', flush=True)
    return figures


def _passed(figures: dict[str, Any], most: float) -> bool:
    """Say whether graph and eager are equal, the error is at most so many times the plain modules',
    and neighbours, where there are any, change nothing. What is not a number does not pass."""
    return bool(
        figures['equal_to_eager']['different'] == 0
        and figures['equal_to_eager']['steps_different'] == 0
        and figures['parity']['ratio'] <= most
        and figures.get('changed_by_neighbours', 0) == 0
        and np.isfinite(figures.get('relative_to_alone', 0.0))
    )


def _alone_and_together(
    backend: Any, arrays: list[tuple[ModelInputs, Any]], alone: list[Any], together: list[Any]
) -> dict[str, float]:
    """Return how far chunks are from those of each observation alone, and how many change when
    their neighbours do. One text of each group is the longest, so that the size of the graph, with
    which bits may change, stays the same."""
    far = float(np.max([  # whose maximum of anything and NaN is NaN
        np.linalg.norm(ours - own) / np.linalg.norm(own)
        for ours, own in zip(together, alone, strict=False)
    ]))
    changed = 0
    for index, own in enumerate(arrays):
        others = [arrays[0 if index else 1]] * len(arrays)
        others[index] = own
        again = backend.several(*zip(*others, strict=True))
        changed += not np.array_equal(again[index], together[index])
    return {'relative_to_alone': far, 'changed_by_neighbours': changed}


def _arrays(inputs: tuple[torch.Tensor, ...]) -> tuple[ModelInputs, Any]:
    """Return what a backend takes, and the noise."""
    *seen, noise = (value[0].cpu().numpy() for value in inputs)
    return ModelInputs(*seen), noise


def _parity(exact: list[Any], plain: list[Any], chunks: list[Any]) -> dict[str, float]:
    """Compare both with float32: relative error of the chunk, and its largest element."""
    served = [torch.from_numpy(chunk).cuda() for chunk in chunks]

    def error(chunks: list[Any]) -> tuple[float, float, float]:
        pairs = [
            (c.reshape(e.shape).double(), e.double())
            for c, e in zip(chunks, exact, strict=True)
        ]
        norm = np.max([float((c - e).norm() / e.norm()) for c, e in pairs])
        largest = np.max([float((c - e).abs().max()) for c, e in pairs])
        cosine = np.min([
            float(torch.cosine_similarity(c.flatten(), e.flatten(), 0)) for c, e in pairs
        ])
        return float(norm), float(largest), float(cosine)

    own, reference = error(served), error(plain)
    return {
        'relative': own[0], 'max_abs': own[1], 'cosine': own[2],
        'plain_relative': reference[0], 'plain_max_abs': reference[1],
        'plain_cosine': reference[2],
        'ratio': own[0] / reference[0], 'max_abs_ratio': own[1] / reference[1],
    }


@torch.inference_mode()
def _replays(
    backend: Any, eager: Any, config: Any, bucket: Any, seeds: range
) -> dict[str, Any]:
    """Compare chunks of graph and eager on fresh inputs, bit for bit: whole, and for some of them
    step by step; and these with one another, which may round differently (pi0's state token)."""
    different = steps_different = steps_unlike_whole = 0
    device = torch.device('cuda')
    inputs = backend._inputs[bucket]
    whole = backend._chunk_run(bucket)
    eager._inputs[bucket] = inputs
    eager._x = backend._x
    eager._dt = backend._dt
    run_eager = eager._chunk_run(bucket)
    for seed in seeds:
        generator = torch.Generator(device=device).manual_seed(1000 + seed)
        inputs.images.normal_(0, 0.5, generator=generator)
        inputs.tokens.random_(0, 40000, generator=generator)
        inputs.state.normal_(generator=generator)
        backend._x.normal_(generator=generator)
        length = config.camera_slots * config.tokens_per_image + backend._policy.state_rows
        shorter = (seed + torch.arange(backend.batch, device=device)) % 8
        backend._policy.length.copy_(length + config.max_tokens - shorter)
        backend._dt.fill_(-1.0 / config.num_steps)
        replayed = whole().clone()
        launched = run_eager()
        different += not torch.equal(replayed, launched)
        if not torch.isfinite(replayed).all():
            different += 1
        if seed < STEPPED and bucket.observations == 1:
            steps = _by_steps(backend, bucket)
            steps_different += not torch.equal(steps, _by_steps(eager, bucket))
            steps_unlike_whole += not torch.equal(replayed, steps)
    return {
        'replays': len(seeds),
        'different': different,
        'replays_by_steps': min(STEPPED, len(seeds)) if bucket.observations == 1 else 0,
        'steps_different': steps_different,
        'steps_unlike_whole': steps_unlike_whole,
    }


def _by_steps(backend: Any, bucket: Any) -> torch.Tensor:
    """Return the chunk of what lies in the inputs, the prefix and each step by itself."""
    place = backend._x_of(1)
    noise = place.clone()
    backend._run('prefix', bucket)()
    for embedding in backend._steps:
        x = backend._step_run(embedding)()[0].clone()
        place.copy_(x)
    place.copy_(noise)
    return x


@torch.inference_mode()
def _times(
    policy: Any, backend: Any, config: Any, ceilings: Ceilings,
    arrays: list[tuple[ModelInputs, Any]],
) -> dict[str, Any]:
    """Return milliseconds of the chunks of observations that are computed together, and of their
    phases, and how often the floor that is."""
    count = len(arrays)
    bucket = bucket_of(config, config.camera_slots, config.max_tokens, count)

    def serve() -> Any:
        if count == 1:
            return backend.whole(*arrays[0])
        return backend.several(*zip(*arrays, strict=True))

    serve()
    policy.length.fill_(
        config.camera_slots * config.tokens_per_image + config.max_tokens + policy.state_rows
    )
    run = backend._chunk_run(bucket)
    whole = median_s(run, 50)
    several = {}
    if count > 1:  # long enough that the card's power limits it
        rested = median_s(run, 10, before=lambda: time.sleep(REST_S))
        several = {
            'rested_ms': rested * 1e3,
            'TFLOP_per_s_between': product_rate(before=run) / 1e12,
        }
    own, x = backend._inputs[bucket], backend._x_of(count)
    prefix = policy.prefix if count == 1 else policy.prefix_without_state

    def graph(function: Callable[[], Any]) -> Callable[[], Any]:
        return backend._captures.of(function, function)

    if count == 1:
        steps = [backend._step_run(embedding) for embedding in backend._steps]
    else:
        constants = [backend._constants_of(embedding).views for embedding in backend._steps]
        steps = [graph(lambda at=at: policy.step(x, backend._dt, at)) for at in constants]
    timed = {
        'vision': median_s(graph(lambda: policy.tower.run(policy.ops, own.images)), 30),
        'vision+prefix': median_s(graph(lambda: prefix(own)), 30),
        'denoise': median_s(lambda: [step() for step in steps], 30),
    }
    costs = phase_costs(config, count)
    floors = {k: cost.floor_s(ceilings) for k, cost in costs.items()}
    floor = sum(floors.values())
    limit = sum(cost.flops for cost in costs.values()) / ceilings.flops_per_s
    clock = []
    for _ in range(30):
        begin = time.perf_counter()
        serve()
        clock.append(time.perf_counter() - begin)
    return {
        'compute_limit_ms': limit * 1e3,
        'of_compute_limit': limit / whole,
        **several,
        'chunk_ms': whole * 1e3,
        'floor_ms': floor * 1e3,
        'times_floor': whole / floor,
        'phases_ms': {k: v * 1e3 for k, v in timed.items()},
        'floors_ms': {k: v * 1e3 for k, v in floors.items()},
        'host_to_host_ms': sorted(clock)[len(clock) // 2] * 1e3,
    }


@torch.inference_mode()
def _kernels(backend: Any, bucket: Any) -> list[dict[str, Any]]:
    """Return device time by kernel of one replayed run, the longest first."""
    replay = backend._chunk_run(bucket)
    replay()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        replay()
        torch.cuda.synchronize()
    rows: dict[str, list[float]] = {}
    for event in profiler.events():
        if 'CUDA' in str(event.device_type):
            rows.setdefault(event.name, []).append(event.device_time)
    listed = [{'name': n, 'count': len(t), 'us': sum(t)} for n, t in rows.items()]
    return sorted(listed, key=lambda row: -row['us'])


if __name__ == '__main__':
    sys.exit(main())
