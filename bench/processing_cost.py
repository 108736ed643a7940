# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Pre- and postprocessing as it serves, against the reference's processors, side by side.

Three cameras of 640×480, a state and a text become what the model takes, and a chunk of 50 becomes
robot-unit actions: SmolVLA with 512×512, pi0 and pi0.5 with 224×224. Three sides do it:

served    check_observation, Preprocessor, ActionDecoder: what Policy.infer does beside the model
torch     the operations of LeRobot's processors and of its policies' image code, with nothing else
lerobot   LeRobot's own processors and image code, where LeRobot is installed

Both references are given arrays that they need not copy, and leave the images unstacked, as LeRobot
does. The sides take turns of a block each, after a pause in which the threads of the side before
come to rest: OpenMP's spin for a while after their work and would take the second core. Compared
are the 10th percentiles, which other load on the machine moves least.

    python bench/processing_cost.py [OUTPUT.json]   default build/bench/processing_cost.json
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from _record import parser, write  # noqa: E402

from vla_deploy.core.contract import Contract  # noqa: E402
from vla_deploy.export.backbone import load_tokenizer  # noqa: E402
from vla_deploy.export.checkpoint import Checkpoint  # noqa: E402
from vla_deploy.export.families import family_of  # noqa: E402
from vla_deploy.export.golden import golden_checkpoint  # noqa: E402
from vla_deploy.export.lerobot import LeRobotReference, NoReferenceError  # noqa: E402
from vla_deploy.export.torch_pipeline import TorchPipeline  # noqa: E402
from vla_deploy.pipeline import Observation  # noqa: E402
from vla_deploy.pipeline.normalize import ActionDecoder, VectorNormalizer  # noqa: E402
from vla_deploy.pipeline.observation import check_observation  # noqa: E402
from vla_deploy.pipeline.preprocess import Preprocessor  # noqa: E402
from vla_deploy.pipeline.tokenize import PromptEncoder  # noqa: E402

# processors of these checkpoints, with images of the size that published ones have
TARGETS = {'smolvla_3cam': 512, 'pi0': 224, 'pi05': 224}
THREADS = (1, 2)
HEIGHT, WIDTH, CHUNK_STEPS = 480, 640, 50
BLOCKS, BLOCK, WARM_UP, PAUSE_S = 8, 25, 5, 0.1
BAR = 0.3
MAX_IMAGE_ERROR = 1e-6
# an observation and a model-space chunk in, images and robot-unit actions out
Side = Callable[[Observation, np.ndarray], tuple[Any, np.ndarray]]


def served_side(checkpoint: Checkpoint, contract: Contract, threads: int) -> Side:
    """What serves."""
    statistics = checkpoint.processors.statistics
    preprocess = Preprocessor(
        contract,
        PromptEncoder(checkpoint.tokenizer, contract.tokenizer),
        VectorNormalizer('state', contract.state, statistics),
        threads,
    )
    decode = ActionDecoder(contract.action, statistics)

    def run(observation: Observation, raw: np.ndarray) -> tuple[Any, np.ndarray]:
        checked = check_observation(observation, contract)
        inputs, _ = preprocess(checked)
        return inputs.images, decode(raw, checked.state).astype(np.float64)

    return run


def torch_side(checkpoint: Checkpoint, contract: Contract) -> Side:
    """The reference's operations in torch."""
    no_model: Any = None  # none is run
    pipeline = TorchPipeline(
        no_model, contract, checkpoint.processors.statistics, load_tokenizer(checkpoint.tokenizer)
    )

    def run(observation: Observation, raw: np.ndarray) -> tuple[Any, np.ndarray]:
        images = pipeline.images(observation)
        pipeline.text_and_state(observation)
        return images, pipeline.actions(raw, observation)

    return run


def lerobot_side(checkpoint: Checkpoint, contract: Contract) -> Side:
    """LeRobot itself; raises NoReferenceError."""
    reference = LeRobotReference(checkpoint, contract)
    policy, size = reference.policy, (contract.image.height, contract.image.width)
    if checkpoint.family == 'smolvla':
        policy.config.resize_imgs_with_padding = size
        prepare_images = policy.prepare_images
    else:
        policy.config.image_resolution = size
        prepare_images = policy._preprocess_images

    @torch.no_grad()
    def run(observation: Observation, raw: np.ndarray) -> tuple[Any, np.ndarray]:
        batch = reference.batch(observation)
        images, _ = prepare_images(batch)
        if checkpoint.family != 'pi05':  # which reads its state in the text
            policy.prepare_state(batch)
        actions = reference.after(torch.from_numpy(raw[None, :, : contract.action.dim]))
        return [image[0] for image in images], actions[0].numpy()

    return run


def require_same(sides: dict[str, Side], observation: Observation, raw: np.ndarray) -> float:
    """Return the largest difference between images; ValueError where the sides do not agree."""
    found = {name: run(observation, raw) for name, run in sides.items()}
    images, actions = found['served']
    worst = 0.0
    for name, (others, other_actions) in found.items():
        pairs = zip(images, others, strict=True)
        error = max(float(np.abs(own - np.asarray(other)).max()) for own, other in pairs)
        if not error <= MAX_IMAGE_ERROR or not np.allclose(actions, other_actions, rtol=1e-5):
            raise ValueError(f'served and {name} differ: images by {error}')
        worst = max(worst, error)
    return worst


def measure(name: str, threads: int) -> dict[str, float]:
    """Seconds of each side (10th percentile, and median), and what part of them served takes."""
    torch.set_num_threads(threads)
    checkpoint = golden_checkpoint(ROOT / 'test' / 'goldens' / name)
    contract = family_of(checkpoint).contract(checkpoint)
    image = dataclasses.replace(contract.image, height=TARGETS[name], width=TARGETS[name])
    contract = dataclasses.replace(contract, image=image)
    sides = {
        'served': served_side(checkpoint, contract, threads),
        'torch': torch_side(checkpoint, contract),
    }
    try:
        sides['lerobot'] = lerobot_side(checkpoint, contract)
    except NoReferenceError as error:
        print(f'{name}: without LeRobot itself: {error}', file=sys.stderr)
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(9)]
    raw = rng.standard_normal((CHUNK_STEPS, contract.action.padded_dim), dtype=np.float32)

    def observation(i: int) -> Observation:
        images = {camera: frames[(3 * i + n) % 9] for n, camera in enumerate(contract.camera_names)}
        return Observation(images, rng.uniform(-1, 1, contract.state.dim), f'pick up cube {i}')

    figures = {'images_max_abs': require_same(sides, observation(0), raw)}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for block in range(BLOCKS + 1):  # the first warms up
        for side, run in sides.items():
            time.sleep(PAUSE_S)
            for i in range(BLOCK):
                seen = observation(BLOCK * block + i)
                began = time.perf_counter()
                run(seen, raw)
                if block > 0 and i >= WARM_UP:
                    times[side].append(time.perf_counter() - began)
    for side, durations in times.items():
        low, middle = np.percentile(durations, [10, 50])
        figures |= {f'{side}_s': float(low), f'{side}_median_s': float(middle)}
    for side in list(sides)[1:]:
        figures[f'of_{side}'] = figures['served_s'] / figures[f'{side}_s']
    return figures


def main() -> int:
    """Print a line for each family and number of threads, and write all as JSON."""
    arguments = parser(__doc__ or '', 'processing_cost').parse_args()
    results = {}
    for name, target in TARGETS.items():
        for threads in THREADS:
            found = measure(name, threads)
            results[f'{name}, {target}x{target}, {threads} threads'] = found
            text = ', '.join(
                f'{found["served_s"] / found[f"of_{side}"] * 1e3:.2f} ms in {side} '
                f'({found[f"of_{side}"]:.3f})'
                for side in ('torch', 'lerobot') if f'of_{side}' in found
            )  # fmt: skip
            print(
                f'{name} to {target}x{target}, {threads} threads: served '
                f'{found["served_s"] * 1e3:.2f} ms of {text}; bar {BAR}'
            )
    write(arguments.output, {'bar_ratio': BAR, 'cameras': 3, 'results': results})
    return 0


if __name__ == '__main__':
    sys.exit(main())
