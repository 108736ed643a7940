# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What an observation costs beside the model: image messages in, chunk message out.

Three cameras of 640×480 rgb8 (and bgr8), resized for a SmolVLA of full size (512×512) and for a
small input. Prefix and sample are left out; a stub stands in for the model.

    python bench/observation_cost.py [OUTPUT.json]   default build/bench/observation_cost.json
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from _record import parser, write  # noqa: E402

from vla_deploy.backends.stub import StubBackend  # noqa: E402
from vla_deploy.core.contract import Contract  # noqa: E402
from vla_deploy.pipeline import Observation, Policy  # noqa: E402
from vla_deploy.pipeline.bundle import NORMALIZER, TOKENIZER, Bundle  # noqa: E402
from vla_deploy.pipeline.strategy import Placed  # noqa: E402
from vla_deploy.ros.chunk_messages import message_to_chunk  # noqa: E402
from vla_deploy.ros.images import image_to_rgb, rgb_to_image  # noqa: E402
from vla_deploy.ros.policy_messages import ChunkContext, chunk_to_message  # noqa: E402

OBSERVATIONS = 600
WARM_UP = 50
CAMERAS = ('front', 'left', 'right')
JOINTS = tuple(f'fr3_joint{i}' for i in range(1, 8))
HEIGHT, WIDTH = 480, 640
TARGETS = (512, 224)
THREADS = (1, 2)
BAR_S = 3e-3


def contract(target: int) -> Contract:
    """A SmolVLA contract for seven joints and chunks of 50."""
    vector = {
        'joints': list(JOINTS),
        'units': ['rad'] * len(JOINTS),
        'dim': len(JOINTS),
        'padded_dim': 32,
        'normalization': {'mode': 'mean_std', 'epsilon': 1e-8},
    }
    action = {'control_mode': 'position', 'semantics': 'absolute', 'first_sample_offset_steps': 0}
    return Contract.from_mapping(
        {
            'schema_version': 1,
            'family': 'smolvla',
            'cameras': [
                {'name': n, 'key': f'observation.images.{n}', 'height': HEIGHT, 'width': WIDTH}
                for n in CAMERAS
            ],
            'empty_camera_slots': 0,
            'image': {
                'height': target,
                'width': target,
                'placement': 'pad_left_top',
                'value_low': -1.0,
                'value_high': 1.0,
            },
            'state': vector,
            'action': {**vector, **action},
            'chunk_steps': 50,
            'denoise_steps': 10,
            'period_s': 0.05,
            'tokenizer': {
                'max_length': 48,
                'padding': 'max_length',
                'pad_token_id': 2,
                'newline': 'append_if_missing',
            },
            'time_embedding': {'dim': 720, 'min_period': 0.004, 'max_period': 4.0},
            'reserved_inputs': [],
        }
    )


def policy(target: int, threads: int, folder: Path) -> Policy:
    """The whole pipeline around a stub."""
    tokenizer = ROOT / 'test/goldens/smolvla_3cam/backbone' / TOKENIZER
    (folder / TOKENIZER).write_bytes(tokenizer.read_bytes())
    statistics = {}
    for part in ('state', 'action'):
        statistics[f'{part}.mean'] = np.zeros(len(JOINTS), np.float32)
        statistics[f'{part}.std'] = np.ones(len(JOINTS), np.float32)
    save_file(statistics, folder / NORMALIZER)
    bundle = Bundle(folder, contract(target), {'files': {}}, '0' * 64)
    return Policy(bundle, StubBackend(0.1), threads)


def measure(target: int, threads: int, encoding: str = 'rgb8') -> dict[str, float]:
    """Durations in seconds of one observation after the other, each with images of its own."""
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(9)]
    messages = [rgb_to_image(frame, 0, 'camera') for frame in frames]
    for message in messages:
        message.encoding = encoding
    state = rng.uniform(-1, 1, len(JOINTS))
    durations, cpu = np.empty(OBSERVATIONS), np.empty(OBSERVATIONS)
    with tempfile.TemporaryDirectory() as folder:
        served = policy(target, threads, Path(folder))
        for i in range(OBSERVATIONS):
            began, cpu_began = time.perf_counter(), time.process_time()
            images = {
                camera: image_to_rgb(messages[(3 * i + n) % len(messages)])
                for n, camera in enumerate(CAMERAS)
            }
            observation = Observation(images, state, 'pick up the red cube')
            chunk = served.infer(observation, noise_seed=i)
            context = ChunkContext(
                placed=Placed(chunk.actions, i, 0, 0, 0.0, 0),
                strategy='synchronous',
                session_id='bench',
                seq=i,
                model_sha256=served.model_sha256,
                adaptive_error=0.0,
                observation_stamp_ns=i,
                image_stamps={},
                guidance=None,
                sent_stamp_ns=i,
                valid_until_ns=i,
                period_s=0.05,
                inference_s=0.0,
                decode_s=0.0,
                anchor_position=state,
                joint_names=JOINTS,
            )
            message = chunk_to_message(chunk, served.contract, context)
            model_s = chunk.timings.prefix_s + chunk.timings.sample_s
            durations[i] = time.perf_counter() - began - model_s
            cpu[i] = time.process_time() - cpu_began - model_s
    assert message_to_chunk(message).data.shape == (50, len(JOINTS))
    p50, p95 = np.percentile(durations[WARM_UP:], [50, 95])
    cpu_p50, cpu_p95 = np.percentile(cpu[WARM_UP:], [50, 95])
    return {'p50_s': p50, 'p95_s': p95, 'cpu_p50_s': cpu_p50, 'cpu_p95_s': cpu_p95}


def main() -> int:
    """Print a line for each input size and write all as JSON."""
    arguments = parser(__doc__ or '', 'observation_cost').parse_args()
    results = {
        f'{target}x{target}, {threads} threads': measure(target, threads)
        for target in TARGETS
        for threads in THREADS
    }
    results[f'{TARGETS[0]}x{TARGETS[0]}, 1 threads, bgr8'] = measure(TARGETS[0], 1, 'bgr8')
    for size, figures in results.items():
        text = '  '.join(f'{key[:-2]} {value * 1e3:.2f} ms' for key, value in figures.items())
        print(f'observation of 3 x {WIDTH}x{HEIGHT} to {size}: {text}')
    record = {
        'cameras': len(CAMERAS),
        'observations': OBSERVATIONS,
        'bar_p50_s': BAR_S,
        'results': results,
    }
    write(arguments.output, record)
    return 0


if __name__ == '__main__':
    sys.exit(main())
