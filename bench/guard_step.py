# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Time of one guard step: plans of 50 samples, noisy ones, and standing still.

For 7 and 14 joints, and for 7 whose jerk is limited, so that Ruckig makes their stops.

    python bench/guard_step.py [OUTPUT.json]       default build/bench/guard_step.json
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test' / 'fuzz')]

from _record import parser, write  # noqa: E402
from guard_world import HOME, START_NS, fr3_limits  # noqa: E402

from vla_deploy.core.chunk import Chunk, ControlMode  # noqa: E402
from vla_deploy.core.guard import GuardCore  # noqa: E402
from vla_deploy.core.guard_config import GuardConfig  # noqa: E402
from vla_deploy.core.guard_io import Inputs, JointState  # noqa: E402
from vla_deploy.core.limits import JointLimits  # noqa: E402
from vla_deploy.ros.realtime import calm_garbage_collector  # noqa: E402

TICKS = 6000
WARM_UP = 200
TICKS_PER_CHUNK = 30
JERK = 5000.0


def arms(count: int, jerk: float | None = None) -> JointLimits:
    """Limits of so many FR3 arms side by side."""
    return JointLimits.of([replace(joint, name=f'arm{i}_{joint.name}', jerk=jerk)
                           for i in range(count) for joint in fr3_limits().joints])


def plan(t0_s: float, noise: np.ndarray) -> np.ndarray:
    """50 samples at 20 Hz of a slow wave, plus noise [50, joints]."""
    count = noise.shape[1]
    t = t0_s + 0.05 * np.arange(50)[:, None]
    wave = np.sin(1.2 * t + np.arange(count)) - np.sin(np.arange(count))
    return np.tile(HOME, count // len(HOME)) + 0.2 * wave + noise


def measure(kind: str, limits: JointLimits) -> dict[str, float]:
    """Durations of TICKS steps [s], with a perfect robot; cpu_*: without preemption."""
    core = GuardCore(limits, GuardConfig(trip_count=100000))
    rng = np.random.default_rng(1)
    joints = len(limits.names)
    position, now = np.tile(HOME, joints // len(HOME)), START_NS
    durations, cpu = np.empty(TICKS), np.empty(TICKS)
    calm_garbage_collector()  # as the node does
    for i in range(TICKS):
        now += 10_000_000
        chunks: tuple[Chunk, ...] = ()
        if kind != 'hold' and i % TICKS_PER_CHUNK == 5:
            noise = rng.normal(0, 0.02 if kind == 'noisy' else 0.0, (50, joints))
            chunks = (Chunk('a', i, now, now, now + 10**9, 0.05, ControlMode.POSITION,
                            limits.names, plan(i * 0.01, noise)),)
        state = JointState(now, limits.names, position, None)
        inputs = Inputs(chunks=chunks, joint_state=state, arm=i == 2)
        began, cpu_began = time.perf_counter(), time.thread_time()
        out = core.step(now, now, inputs)
        durations[i] = time.perf_counter() - began
        cpu[i] = time.thread_time() - cpu_began
        if out.execution.commanded_position is not None:
            position = out.execution.commanded_position
    p50, p95, p99 = np.percentile(durations[WARM_UP:], [50, 95, 99])
    cpu_p50, cpu_p99 = np.percentile(cpu[WARM_UP:], [50, 99])
    return {'p50_s': p50, 'p95_s': p95, 'p99_s': p99, 'max_s': durations[WARM_UP:].max(),
            'cpu_p50_s': cpu_p50, 'cpu_p99_s': cpu_p99}


def main() -> int:
    """Print a line for each load and number of joints, and write them as JSON."""
    arguments = parser(__doc__ or '', 'guard_step').parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, limits in (('7 joints', arms(1)), ('14 joints', arms(2)),
                         ('7 joints, jerk', arms(1, JERK))):
        figures = results[name] = {}
        for kind in ('plan', 'noisy', 'hold'):
            figures[kind] = measure(kind, limits)
            text = '  '.join(f'{key[:-2]} {value * 1e6:.0f} us'
                             for key, value in figures[kind].items())
            print(f'guard step, {name}, {kind}: {text}', flush=True)
    write(arguments.output, {'ticks': TICKS, 'results': results})
    return 0


if __name__ == '__main__':
    sys.exit(main())
