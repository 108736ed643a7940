# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Record demonstrations of the reach task, train a small SmolVLA on them, write the checkpoint.

    python tools/train/reach_policy.py --output policies/reach                  # on the CPU
    python tools/train/reach_policy.py --output OUT --device cuda --preset long # on a GPU
    python tools/train/reach_policy.py --output OUT --dataset data.npz          # record once

Everything is drawn from --seed. `training.json` in the output says what was done and how long.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from reach_checkpoint import (  # noqa: E402
    Arrays,
    image_statistics,
    vector_statistics,
    write_checkpoint,
)
from reach_data import STATES_PER_SCENE, Dataset, Recording, record  # noqa: E402
from reach_model import ReachPolicy, build_model, checkpoint_weights  # noqa: E402
from reach_training import (  # noqa: E402
    Batches,
    Options,
    Phase,
    Progress,
    chunk_labels,
    initialise,
    train,
)

from vla_deploy.sim import reach  # noqa: E402

PRESETS = {
    'short': {'scenes': 30_000, 'images': 32, 'steps': (800, 1000), 'rates': (2e-3, 1.5e-3)},
    'long': {'scenes': 60_000, 'images': 256, 'steps': (1500, 12_500), 'rates': (1.5e-3, 1.2e-3)},
}
PHASE_WEIGHTS = ((1.0, 1.0), (0.3, 0.5))
"""Weights of the centre and goal heads' losses in the two phases."""

STATISTICS_IMAGES = 2000
CHECK_IMAGES = 600


def main() -> int:
    """Run the steps; returns the exit code."""
    arguments = _parser().parse_args()
    preset = PRESETS[arguments.preset]
    options = _options(arguments, preset)
    device = torch.device(arguments.device)
    if device.type == 'cuda':
        torch.set_float32_matmul_precision('high')
    began = time.monotonic()
    scenes = arguments.scenes or preset['scenes']
    data = _dataset(arguments, scenes)
    recorded = time.monotonic()
    print(f'{len(data.images)} images after {recorded - began:.0f} s', flush=True)

    torch.manual_seed(arguments.seed)
    model = build_model()
    initialise(model)
    model.to(device)
    statistics = _statistics(data)
    train(model, Batches(data, statistics, device), options, _Printer())
    trained = time.monotonic()

    figures = _open_loop(ReachPolicy(model, statistics), arguments)
    print(json.dumps(figures), flush=True)
    write_checkpoint(arguments.output, checkpoint_weights(model), statistics)
    account = {
        'options': asdict(options),
        'scenes': scenes,
        'states_per_scene': STATES_PER_SCENE,
        'record_s': round(recorded - began, 1),
        'train_s': round(trained - recorded, 1),
        'device': torch.cuda.get_device_name() if device.type == 'cuda' else platform.machine(),
        'torch': torch.__version__,
        'open_loop': figures,
    }
    (arguments.output / 'training.json').write_text(json.dumps(account, indent=2) + '\n')
    print(f'wrote {arguments.output} after {time.monotonic() - began:.0f} s', flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--output', type=Path, required=True, help='checkpoint folder to write')
    parser.add_argument('--device', default='cpu', choices=('cpu', 'cuda'))
    parser.add_argument('--preset', default='short', choices=sorted(PRESETS))
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--scenes', type=int, help='scenes to record, two images each')
    parser.add_argument('--steps', type=int, nargs=2, help='steps of the two phases')
    parser.add_argument('--images', type=int, help='images in a batch')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1)
    parser.add_argument('--dataset', type=Path, help='.npz to read, or to write when not there')
    return parser


def _options(arguments: argparse.Namespace, preset: dict[str, object]) -> Options:
    steps = arguments.steps or preset['steps']
    phases = tuple(
        Phase(count, rate, cosine, *weights)
        for count, rate, cosine, weights in zip(
            steps, preset['rates'], (False, True), PHASE_WEIGHTS, strict=True
        )
    )
    return Options(phases, arguments.images or preset['images'], draws=2, seed=arguments.seed)


def _dataset(arguments: argparse.Namespace, scenes: int) -> Dataset:
    if arguments.dataset is not None and arguments.dataset.is_file():
        return Dataset.load(arguments.dataset)
    first = arguments.seed * 1_000_000
    data = record(
        Recording(_urdf(), first, scenes, held_out=False, vary=True),
        arguments.workers,
        _recording_progress,
    )
    if arguments.dataset is not None:
        data.save(arguments.dataset)
    return data


def _urdf() -> str:
    return (ROOT / 'urdf' / 'fr3.urdf').read_text(encoding='utf-8')


def _recording_progress(done: int, blocks: int) -> None:
    if done % max(1, blocks // 10) == 0:
        print(f'recorded {100 * done // blocks} %', flush=True)


class _Printer:
    """Prints one line a report."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, now: Progress) -> None:
        if now.step % 500 == 0 or now.step == now.steps or now.steps < 5000:
            print(
                f'step {now.step}/{now.steps} {time.monotonic() - self._began:.0f} s '
                f'lr {now.learning_rate:.1e} flow {now.flow:.4f} patch {now.patch:.4f} '
                f'centre {now.centre:.4f} goal {now.goal:.4f}',
                flush=True,
            )


def _statistics(data: Dataset) -> Arrays:
    """Return what the processors store: state and image statistics, and those of every label."""
    with torch.no_grad():
        few = slice(None, None, max(1, len(data.images) // 20_000))
        labels = chunk_labels(
            torch.from_numpy(data.position[few]), torch.from_numpy(data.goal[few])
        )
    every = max(1, len(data.images) // STATISTICS_IMAGES)
    return (
        vector_statistics('observation.state', data.position)
        | vector_statistics('action', labels.flatten(0, 2).numpy())
        | image_statistics(data.images[::every])
    )


def _open_loop(policy: ReachPolicy, arguments: argparse.Namespace) -> dict[str, float]:
    """Compare single chunks with the expert's in held-out placements, without light changes."""
    scenes = CHECK_IMAGES // STATES_PER_SCENE
    data = record(
        Recording(_urdf(), arguments.seed * 1_000_000, scenes, held_out=True, vary=False), 1
    )
    colours = np.arange(len(data.images)) % len(reach.COLOURS)
    goals = data.goal[np.arange(len(colours)), colours]
    noise = np.random.default_rng(arguments.seed).standard_normal((len(colours), 16, 7))
    chunks = policy.chunks(
        data.images,
        data.position,
        [reach.instruction(reach.COLOURS[colour]) for colour in colours],
        noise.astype(np.float32),
    )
    wanted = reach.expert_chunk(data.position.astype(np.float64), goals, chunks.shape[1])
    error = np.abs(chunks - wanted).max(axis=(1, 2))
    return {
        'chunks': len(error),
        'worst_joint_error_rad_p50': round(float(np.median(error)), 5),
        'worst_joint_error_rad_p90': round(float(np.percentile(error, 90)), 5),
        'share_below_0.03_rad': round(float(np.mean(error < 0.03)), 4),
    }


if __name__ == '__main__':
    sys.exit(main())
