# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What fewer denoising steps and skipped inferences save, and by how much the actions err.

    python bench/shortcuts.py [OUTPUT.json] [--episodes 20]

`adaptive_steps`: against all steps with the same noise, on the fixtures and in closed loop.
`action_similarity`: how far a chunk that follows a skip is from what was executed in its place.
Time is simulated; everything else is what the nodes run.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tools' / 'train')]

from _record import parser, write  # noqa: E402
from reach_rollout import CAMERA, OPTIONS, Loop  # noqa: E402
from rollout_policy import Actions, served_policy  # noqa: E402

from vla_deploy.export.own_bundle import bundle_for  # noqa: E402
from vla_deploy.pipeline import Observation, Policy  # noqa: E402
from vla_deploy.pipeline.sampler import Haste  # noqa: E402
from vla_deploy.pipeline.strategy import Placed  # noqa: E402
from vla_deploy.sim import reach  # noqa: E402

TOLERANCES = (0.0, 0.01, 0.03, 0.1, 0.3)
SIMILARITIES_RAD = (0.0, 0.02, 0.05, 0.1)
EXECUTE_STEPS = 4
"""Of 16 samples: so that there is something left to skip."""


def adaptive(policy: Policy, tolerance: float, episodes: int) -> dict[str, Any]:
    """Measure one tolerance of adaptive_steps."""
    errors_rad: list[float] = []
    steps: list[int] = []

    def infer(image: Any, position: Any, sentence: str, seed: int, guidance: Any) -> Actions:
        observation = Observation({CAMERA: image}, position, sentence)
        fewer = policy.infer(
            observation, noise_seed=seed, haste=Haste(adaptive_tolerance=tolerance)
        )
        exact = policy.infer(observation, noise_seed=seed)
        errors_rad.append(float(np.abs(fewer.actions - exact.actions).max()))
        steps.append(fewer.denoise_steps)
        return fewer.actions, fewer.raw

    reached = _reached(Loop(infer), episodes)
    return {
        'adaptive_steps': tolerance,
        'denoise_steps_mean': float(np.mean(steps)),
        'error_fixtures_rad': policy.adaptive_error(tolerance),
        'error_max_rad': max(errors_rad),
        'error_mean_rad': float(np.mean(errors_rad)),
        'reached': reached,
    }


def similar(policy: Policy, similarity_rad: float, episodes: int) -> dict[str, Any]:
    """Measure one value of action_similarity."""
    placed: list[Placed] = []
    options = replace(OPTIONS, execute_steps=EXECUTE_STEPS, action_similarity=similarity_rad)
    loop = Loop(served_policy(policy), options, placed=placed.append)
    reached = _reached(loop, episodes)
    errors_rad = [p.difference for p in placed if p.skipped]
    return {
        'action_similarity_rad': similarity_rad,
        'chunks': len(placed),
        'skipped': sum(p.skipped for p in placed),
        'error_max_rad': max(errors_rad, default=0.0),
        'error_mean_rad': float(np.mean(errors_rad)) if errors_rad else 0.0,
        'reached': reached,
    }


def _reached(loop: Loop, episodes: int) -> int:
    with loop:
        results = [loop.run('named', seed) for seed in range(episodes)]
    return sum(result.distance_m <= reach.SUCCESS_M for result in results)


def main() -> int:
    """Print a line for each value, and write all as JSON."""
    options = parser(__doc__ or '', 'shortcuts')
    options.add_argument('--episodes', type=int, default=20)
    arguments = options.parse_args()
    policy = Policy.load(str(bundle_for('franka', '')), threads=1)
    figures: dict[str, list[dict[str, Any]]] = {'adaptive_steps': [], 'action_similarity': []}
    for tolerance in TOLERANCES:
        figures['adaptive_steps'].append(adaptive(policy, tolerance, arguments.episodes))
        print(figures['adaptive_steps'][-1], flush=True)
    for similarity_rad in SIMILARITIES_RAD:
        figures['action_similarity'].append(similar(policy, similarity_rad, arguments.episodes))
        print(figures['action_similarity'][-1], flush=True)
    write(arguments.output, {'episodes': arguments.episodes, **figures})
    return 0


if __name__ == '__main__':
    sys.exit(main())
