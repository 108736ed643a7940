# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Closed loop: does the bundle that is served do what the policy does in PyTorch?

The demonstration is run twice, on the same scenes, through the whole ROS graph with the guard on:
by ONNX Runtime, as it is served, and by PyTorch on the CPU, in float32 or at another precision that
a bundle was exported with. Both rates stand with their 95 % interval, and each episode's final
distances side by side.

    python bench/closed_loop.py [OUTPUT.json] [--episodes 12] [--seed 1]
        [--precision fp8 --bundle BUNDLE]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from _record import parser, write  # noqa: E402

SERVED, PYTORCH = 'onnx_runtime', 'torch_cuda'


def run(
    backend: str, precision: str, bundle: str, episodes: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Run the demonstration on one backend; return its report."""
    words = ['--backend', backend, '--precision', precision, '--bundle', bundle, '--controls', '0',
             '--clock', 'simulated', '--episodes', str(episodes), '--seed', str(seed),
             '--output', str(folder)]  # fmt: skip
    subprocess.run([sys.executable, '-m', 'vla_deploy.cli.demo', *words], check=True)
    report: dict[str, Any] = json.loads((folder / 'report.json').read_text())
    return report


def distances_m(report: dict[str, Any]) -> np.ndarray:
    """Final distances to the named cube's goal [episodes]."""
    return np.array([episode['distance_m'] for episode in report['episodes']])


def main() -> int:
    """Return 1 if the two rates' intervals lie apart."""
    options = parser(__doc__ or '', 'closed_loop')
    options.add_argument('--episodes', type=int, default=12)
    options.add_argument('--seed', type=int, default=1)
    options.add_argument('--precision', default='fp32', help='in which PyTorch computes (fp32)')
    options.add_argument('--bundle', default='', help="another bundle than the robot's own")
    arguments = options.parse_args()
    reports = {}
    for name, backend, precision in (
        ('served', SERVED, 'fp32'), ('pytorch', PYTORCH, arguments.precision),
    ):
        folder = arguments.output.parent / f'closed_loop_{name}'
        reports[name] = run(
            backend, precision, arguments.bundle, arguments.episodes, arguments.seed, folder
        )
    apart_m = np.abs(distances_m(reports['served']) - distances_m(reports['pytorch']))
    rates = {name: report['reached'] for name, report in reports.items()}
    write(arguments.output, {
        'seed': arguments.seed,
        'bundle': arguments.bundle,
        'model_sha256': reports['pytorch']['model_sha256'],
        'reached': rates,
        'backends': {name: report['backend'] for name, report in reports.items()},
        'final_distance_apart_m': {'p50': float(np.median(apart_m)), 'max': float(apart_m.max())},
    })
    for name, rate in rates.items():
        low, high = rate['wilson_95']
        print(f'closed loop, {name} ({reports[name]["backend"]}): {rate["successes"]} of '
              f'{rate["episodes"]} reached (95 % CI {100 * low:.0f}–{100 * high:.0f} %)')
    print(f'final distances apart: p50 {np.median(apart_m) * 1e3:.1f} mm, '
          f'max {apart_m.max() * 1e3:.1f} mm')
    served, pytorch = rates['served']['wilson_95'], rates['pytorch']['wilson_95']
    return 0 if served[0] <= pytorch[1] and pytorch[0] <= served[1] else 1


if __name__ == '__main__':
    sys.exit(main())
