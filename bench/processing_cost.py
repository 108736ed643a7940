# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Pre- and postprocessing as it serves, against the same operations in torch, side by side.

Three cameras of 640×480, a state and a text become model inputs, and a chunk of 50 becomes
robot-unit actions. The torch side is what export compares with: LeRobot's processors, operation
by operation. Both run in turns in one process, with the same number of threads; compared are the
10th percentiles, which other load on the machine moves least.

    python bench/processing_cost.py [OUTPUT.json]   default build/bench/processing_cost.json
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from _record import parser, write  # noqa: E402
from observation_cost import CAMERAS, HEIGHT, JOINTS, TARGETS, THREADS, WIDTH, contract  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from vla_deploy.export.backbone import load_tokenizer  # noqa: E402
from vla_deploy.export.torch_pipeline import TorchPipeline  # noqa: E402
from vla_deploy.pipeline import Observation  # noqa: E402
from vla_deploy.pipeline.normalize import ActionDecoder, VectorNormalizer  # noqa: E402
from vla_deploy.pipeline.observation import check_observation  # noqa: E402
from vla_deploy.pipeline.preprocess import Preprocessor  # noqa: E402
from vla_deploy.pipeline.tokenize import PromptEncoder  # noqa: E402

TOKENIZER = ROOT / 'test/goldens/smolvla_3cam/backbone/tokenizer.json'
REPEATS, WARM_UP = 150, 20
BAR = 0.3


def statistics(folder: Path) -> dict[str, np.ndarray]:
    """Means and standard deviations of seven joints, as a bundle holds them."""
    values = {
        f'{part}.{what}': np.linspace(0.1, 1.0, len(JOINTS), dtype=np.float32)
        for part in ('state', 'action')
        for what in ('mean', 'std')
    }
    save_file(values, folder / 'normalizer.safetensors')
    return load_file(folder / 'normalizer.safetensors')


def measure(target: int, threads: int, folder: Path) -> dict[str, float]:
    """Medians in seconds of both sides, and their ratio."""
    torch.set_num_threads(threads)
    made, values = contract(target), statistics(folder)
    served = Preprocessor(
        made, PromptEncoder(TOKENIZER, made.tokenizer),
        VectorNormalizer('state', made.state, values), threads,
    )
    decode = ActionDecoder(made.action, values)
    no_model: Any = None  # none is run
    reference = TorchPipeline(no_model, made, values, load_tokenizer(TOKENIZER))
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(9)]
    raw = rng.standard_normal((50, 32), dtype=np.float32)
    times = np.empty((REPEATS, 2))
    for i in range(REPEATS):
        images = {camera: frames[(3 * i + n) % 9] for n, camera in enumerate(CAMERAS)}
        observation = Observation(images, rng.uniform(-1, 1, len(JOINTS)), f'pick up cube {i}')
        began = time.perf_counter()
        checked = check_observation(observation, made)
        served(checked)
        decode(raw, checked.state)
        between = time.perf_counter()
        reference.inputs(observation)
        reference.actions(raw, observation)
        times[i] = between - began, time.perf_counter() - between
    ours, theirs = np.percentile(times[WARM_UP:], 10, axis=0)
    return {'served_s': float(ours), 'torch_s': float(theirs), 'ratio': float(ours / theirs)}


def main() -> int:
    """Print a line for each input size and number of threads, and write all as JSON."""
    arguments = parser(__doc__ or '', 'processing_cost').parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {
            f'{target}x{target}, {threads} threads': measure(target, threads, Path(folder))
            for target in TARGETS
            for threads in THREADS
        }
    for size, found in results.items():
        print(
            f'{size}: served {found["served_s"] * 1e3:.2f} ms, torch '
            f'{found["torch_s"] * 1e3:.2f} ms, ratio {found["ratio"]:.3f} (bar {BAR})'
        )
    write(arguments.output, {'repeats': REPEATS, 'bar_ratio': BAR, 'results': results})
    return 0


if __name__ == '__main__':
    sys.exit(main())
