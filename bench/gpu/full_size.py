# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The torch backend at full size on a GPU, random weights: parity, times, floor, kernels.

    python bench/gpu/full_size.py OUTPUT.json [--models pi0,pi05,smolvla] [--replays 1000]
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from _reference import in_dtype, plain_chunk, random_inputs, random_policy  # noqa: E402

from vla_deploy.backends import torch_cuda  # noqa: E402
from vla_deploy.backends.fused_policy import FusedPolicy, bucket_of  # noqa: E402
from vla_deploy.backends.parameters import ModuleParameters  # noqa: E402
from vla_deploy.backends.roofline import (  # noqa: E402
    Ceilings,
    measure_ceilings,
    median_s,
    phase_costs,
)
from vla_deploy.core.contract import TimeEmbedding  # noqa: E402
from vla_deploy.models.published import PUBLISHED  # noqa: E402

DTYPE = torch.bfloat16
SEEDS = 2
SHOWN = 6  # of the configurations that were measured


def main() -> int:
    """Measure and write; returns 1 where parity or equality of graph and eager fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('output', type=Path)
    parser.add_argument('--models', default='pi0,pi05,smolvla')
    parser.add_argument('--replays', type=int, default=1000, help='of the first model')
    parser.add_argument('--other-replays', type=int, default=1000)
    arguments = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False  # float32 is the reference
    ceilings = measure_ceilings()
    figures: dict[str, Any] = {
        'card': torch.cuda.get_device_name(),
        'torch': torch.__version__,
        'read_TB_per_s': ceilings.read_bytes_per_s / 1e12,
        'bf16_TFLOP_per_s': ceilings.flops_per_s / 1e12,
        'models': {},
    }
    print(json.dumps(figures), flush=True)
    replays = arguments.replays
    for name in arguments.models.split(','):
        figures['models'][name] = _measure(name, ceilings, replays)
        replays = arguments.other_replays
        arguments.output.write_text(json.dumps(figures, indent=1) + '\n')
        gc.collect()  # the backend is part of a cycle
        torch.cuda.empty_cache()
    good = all(model['passed'] for model in figures['models'].values())
    return 0 if good else 1


def _measure(name: str, ceilings: Ceilings, replays: int) -> dict[str, Any]:
    config, device = PUBLISHED[name], torch.device('cuda')
    begin = time.perf_counter()
    module = random_policy(config, device)
    contract = SimpleNamespace(
        time_embedding=TimeEmbedding(
            module.time_table.shape[1], config.min_period, config.max_period
        ),
        denoise_steps=config.num_steps,
    )
    seeds = [random_inputs(config, device, seed) for seed in range(SEEDS)]
    exact = [plain_chunk(module, torch.float32, inputs) for inputs in seeds]
    plain_module = in_dtype(module, DTYPE)
    plain = [plain_chunk(plain_module, DTYPE, inputs) for inputs in seeds]
    del plain_module
    torch.cuda.empty_cache()
    with torch.inference_mode(), torch_cuda.own_stream(True) as stream:
        source = ModuleParameters(module, device)
        policy = FusedPolicy(config, source, DTYPE, torch_cuda.make_ops(device, DTYPE))
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
    served = [backend.whole(*_arrays(inputs)) for inputs in seeds]
    figures = {
        'parity': _parity(exact, plain, [torch.from_numpy(c).cuda() for c in served]),
        'equal_to_eager': _replays(backend, eager, config, range(replays)),
        'weights_GB': weights / 1e9,
        'peak_GB': peak / 1e9,
        'peak_of_weights': peak / weights,
        **_times(policy, backend, config, ceilings, seeds[0]),
        'kernels': _kernels(backend, config),
        'tuned': {
            f'{key} x{policy.ops.tuning.calls[key]}': [
                [round(ms, 4), str(option)] for ms, option in timed[:SHOWN]
            ]
            for key, timed in policy.ops.tuning.timings.items()
        },
    }
    if policy.ops.tuning.changed:
        tuning_file = torch_cuda.cache_path(torch.cuda.get_device_name(), DTYPE)
        figures['tuning_file'] = json.loads(tuning_file.read_text())
    ratio = figures['parity']['ratio']
    figures['passed'] = figures['equal_to_eager']['different'] == 0 and ratio <= 1.25
    shown = {k: v for k, v in figures.items() if k not in ('kernels', 'tuned', 'tuning_file')}
    print(name, json.dumps(shown, indent=1), flush=True)
    for key, rows in figures['tuned'].items():
        print('  tuned', key, rows[:2], flush=True)
    for row in figures['kernels'][:12]:
        print(f'  {row["us"]:9.1f} us {row["count"]:5d} x {row["name"][:90]}', flush=True)
    return figures


def _arrays(inputs: tuple[torch.Tensor, ...]) -> list[Any]:
    return [value[0].cpu().numpy() for value in inputs]


def _parity(exact: list[Any], plain: list[Any], served: list[Any]) -> dict[str, float]:
    """Compare both with float32: relative error of the chunk, and its largest element."""

    def error(chunks: list[Any]) -> tuple[float, float, float]:
        pairs = [
            (c.reshape(e.shape).double(), e.double())
            for c, e in zip(chunks, exact, strict=True)
        ]
        norm = max(float((c - e).norm() / e.norm()) for c, e in pairs)
        largest = max(float((c - e).abs().max()) for c, e in pairs)
        cosine = min(
            float(torch.cosine_similarity(c.flatten(), e.flatten(), 0)) for c, e in pairs
        )
        return norm, largest, cosine

    own, reference = error(served), error(plain)
    return {
        'relative': own[0], 'max_abs': own[1], 'cosine': own[2],
        'plain_relative': reference[0], 'plain_max_abs': reference[1],
        'plain_cosine': reference[2],
        'ratio': own[0] / reference[0], 'max_abs_ratio': own[1] / reference[1],
    }


@torch.inference_mode()
def _replays(backend: Any, eager: Any, config: Any, seeds: range) -> dict[str, Any]:
    """Compare chunks of graph and eager on fresh inputs, bit for bit; and whole with split."""
    different = split_different = 0
    device = torch.device('cuda')
    bucket = bucket_of(config, config.camera_slots, config.max_tokens)
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
        backend._policy.length.fill_(length + config.max_tokens - seed % 8)
        backend._dt.fill_(-1.0 / config.num_steps)
        replayed = whole().clone()
        launched = run_eager()
        different += not torch.equal(replayed, launched)
        if not torch.isfinite(replayed).all():
            different += 1
        if seed < 20:
            noise = backend._x.clone()
            backend._run('prefix', bucket)()
            x = noise
            for embedding in backend._steps:
                backend._x.copy_(x)
                x = backend._step_run(embedding)()[0].clone()
            backend._x.copy_(noise)
            split_different += not torch.equal(replayed, x)
    return {'replays': len(seeds), 'different': different, 'split_different': split_different}


@torch.inference_mode()
def _times(
    policy: Any, backend: Any, config: Any, ceilings: Ceilings, inputs: tuple[torch.Tensor, ...]
) -> dict[str, Any]:
    """Return milliseconds of the chunk and of its phases, and how often the floor that is."""
    bucket = bucket_of(config, config.camera_slots, config.max_tokens)
    arrays = _arrays(inputs)
    backend.whole(*arrays)
    whole = median_s(backend._chunk_run(bucket), 50)
    own = backend._inputs[bucket]
    steps = [backend._step_run(embedding) for embedding in backend._steps]
    vision = backend._captured(lambda: policy.tower.run(policy.ops, own.images), None)
    timed = {
        'vision': median_s(vision, 30),
        'vision+prefix': median_s(backend._run('prefix', bucket), 30),
        'denoise': median_s(lambda: [step() for step in steps], 30),
    }
    floors = {k: cost.floor_s(ceilings) for k, cost in phase_costs(config).items()}
    floor = sum(floors.values())
    clock = []
    for _ in range(30):
        begin = time.perf_counter()
        backend.whole(*arrays)
        clock.append(time.perf_counter() - begin)
    return {
        'chunk_ms': whole * 1e3,
        'floor_ms': floor * 1e3,
        'times_floor': whole / floor,
        'phases_ms': {k: v * 1e3 for k, v in timed.items()},
        'floors_ms': {k: v * 1e3 for k, v in floors.items()},
        'host_to_host_ms': sorted(clock)[len(clock) // 2] * 1e3,
    }


@torch.inference_mode()
def _kernels(backend: Any, config: Any) -> list[dict[str, Any]]:
    """Return device time by kernel of one replayed chunk, the longest first."""
    bucket = bucket_of(config, config.camera_slots, config.max_tokens)
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
