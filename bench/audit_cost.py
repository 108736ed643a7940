# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the audit log costs the control thread: ticks at 100 Hz with a log and without, alternating.

    python bench/audit_cost.py [OUTPUT.json] [--seconds 10]     default build/bench/audit_cost.json

Each tick makes one step of the guard on a running plan, and hands it to the log. `step` is that;
`lateness` is how much later than due the tick began, which the thread of the log could cause.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test' / 'fuzz')]

from _record import parser, write  # noqa: E402
from guard_step import plan  # noqa: E402
from guard_world import World  # noqa: E402

from vla_deploy.core.audit import AuditLog  # noqa: E402
from vla_deploy.core.audit_config import AuditConfig  # noqa: E402
from vla_deploy.core.chunk import Chunk  # noqa: E402
from vla_deploy.core.guard_io import Inputs  # noqa: E402
from vla_deploy.core.journal import genesis_of  # noqa: E402

PERIOD_S = 0.01
TICKS_PER_CHUNK = 30
CLOSE_TIMEOUT_S = 30.0


def measure(seconds: float, log: AuditLog | None) -> np.ndarray:
    """Return durations and lateness of ticks in real time, float64 [ticks, 2], s."""
    world, figures = World(), []
    due_s = time.monotonic()
    for i in range(round(seconds / PERIOD_S)):
        due_s += PERIOD_S
        time.sleep(max(0.0, due_s - time.monotonic()))
        late_s = time.monotonic() - due_s
        chunks: tuple[Chunk, ...] = ()
        if i % TICKS_PER_CHUNK == 5:
            chunks = (world.chunk(plan(i * PERIOD_S, np.zeros((50, 7)))),)
        world.ros_ns += round(PERIOD_S * 1e9)
        world.steady_ns += round(PERIOD_S * 1e9)
        inputs = Inputs(chunks=chunks, joint_state=world.measured(), arm=i == 2)
        began_s = time.perf_counter()
        out = world.core.step(world.ros_ns, world.steady_ns, inputs)
        if log is not None:
            log.step(world.ros_ns, world.steady_ns, inputs, out)
        figures.append((time.perf_counter() - began_s, max(0.0, late_s)))
        if out.trajectory is not None:
            world.received.append((world.ros_ns, out.trajectory))
    return np.array(figures)


def summary(figures: np.ndarray) -> dict[str, float]:
    """Return percentiles of both columns in seconds."""
    return {
        f'{name}_p{rank}_s': float(np.percentile(figures[50:, column], rank))
        for column, name in enumerate(('step', 'lateness'))
        for rank in (50, 99, 100)
    }


def main() -> int:
    """Print a line without a log and one for each fsync policy, and write them as JSON."""
    options = parser(__doc__ or '', 'audit_cost')
    options.add_argument('--seconds', type=float, default=10.0)
    arguments = options.parse_args()
    results: dict[str, dict[str, float]] = {}
    for policy in ('', 'never', 'every_second', 'every_write'):
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=arguments.output.parent) as folder:
            log = None
            if policy:
                world = World()
                config = dataclasses.replace(AuditConfig(), log_fsync=policy)
                log = AuditLog(Path(folder) / 'log', config,
                               genesis_of(world.limits, world.config, {}, {}))
                log.start()
            figures = summary(measure(arguments.seconds, log))
            if log is not None:
                log.close(CLOSE_TIMEOUT_S)
                status = log.status()
                size = sum(file.stat().st_size for file in log.folder.iterdir())
                figures |= {'records': status.records, 'lost': status.lost,
                            'bytes_per_record': size / status.records}
        name = f'log, fsync {policy}' if policy else 'no log'
        results[policy or 'no_log'] = figures
        print(f'{name}: ' + '  '.join(
            f'{key[:-2]} {value * 1e6:.0f} us' if key.endswith('_s') else f'{key} {value:.0f}'
            for key, value in figures.items()), flush=True)
    write(arguments.output, {'seconds': arguments.seconds, 'results': results})
    return 0


if __name__ == '__main__':
    sys.exit(main())
