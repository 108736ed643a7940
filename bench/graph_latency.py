# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard in the running graph at 100 and 250 Hz, with SCHED_FIFO and without: duration of the
core's step and of the whole tick, publishing and journal included, and lateness of the ticks.

Inference and the simulated robot with its camera run niced beside it, as every bring-up has them.

    python bench/graph_latency.py [OUTPUT.json] [--seconds 30] [--bundle FOLDER]
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import rclpy
from rclpy.node import Node

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from _record import parser, write  # noqa: E402

from vla_deploy.bringup import BringUpOptions, Process, bring_up  # noqa: E402
from vla_deploy.export.own_bundle import bundle_for  # noqa: E402
from vla_deploy.ros import qos  # noqa: E402
from vla_deploy.ros.transport import IMAGES, use_profile  # noqa: E402
from vla_deploy.supervisor import Supervisor  # noqa: E402
from vla_deploy_msgs.msg import GuardStatus, PolicyStatus  # noqa: E402

OPTIONS = BringUpOptions(sim=True, instruction='reach the red cube')
RATES_HZ = (100, 250)


def graph(options: BringUpOptions, bundle: Path, rate_hz: int) -> list[Process]:
    """Return the processes of the Franka, the guard at a rate of its own."""
    return [
        replace(process, command=(*process.command, '-p', f'period_s:={1.0 / rate_hz}'))
        if process.name == 'guard' else process
        for process in bring_up('franka', options, bundle)
    ]


def measure(processes: list[Process], seconds: float, log: Path) -> dict[str, object]:
    """Run the graph and return the guard's own figures over the last 1000 ticks."""
    rclpy.init()
    node = Node('graph_latency')
    last: dict[str, GuardStatus | PolicyStatus] = {}
    for name, kind in (('guard', GuardStatus), ('inference', PolicyStatus)):
        node.create_subscription(
            kind, f'{name}/status', lambda msg, n=name: last.__setitem__(n, msg), qos.STATUS
        )
    with log.open('w') as output:
        supervisor = Supervisor(processes, output)
        try:
            end = None
            while end is None or time.monotonic() < end:
                rclpy.spin_once(node, timeout_sec=0.1)
                moving = 'guard' in last and last['guard'].state == GuardStatus.STATE_ARMED
                if end is None and moving:
                    end = time.monotonic() + seconds
                problem = supervisor.poll()
                if problem:
                    raise SystemExit(f'graph_latency: {problem}; see {log}')
        finally:
            supervisor.end()
            rclpy.shutdown()
    guard, inference = last['guard'], last['inference']
    return {
        'sched_fifo': guard.sched_fifo,
        'commands': guard.commands_published,
        'step_p50_ms': guard.step_p50_s * 1e3,
        'step_p99_ms': guard.step_p99_s * 1e3,
        'tick_p50_ms': guard.tick_p50_s * 1e3,
        'tick_p99_ms': guard.tick_p99_s * 1e3,
        'lateness_p99_ms': guard.tick_lateness_p99_s * 1e3,
        'chunks': inference.chunks,
        'chunk_p95_ms': inference.latency_p95_s * 1e3,
    }


def main() -> int:
    """Print a line for each rate, with SCHED_FIFO and without, and write all as JSON."""
    options = parser(__doc__ or '', 'graph_latency')
    options.add_argument('--seconds', type=float, default=30.0)
    options.add_argument('--bundle', default='')
    arguments = options.parse_args()
    use_profile(IMAGES)
    output = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    bundle = bundle_for('franka', arguments.bundle)
    results = {}
    for rate_hz in RATES_HZ:
        for name, priority in (('fifo', OPTIONS.sched_fifo_priority), ('no_fifo', 0)):
            name = f'{rate_hz}_hz_{name}'
            processes = graph(replace(OPTIONS, sched_fifo_priority=priority), bundle, rate_hz)
            log = output.with_name(f'graph_latency_{name}.log')
            results[name] = figures = measure(processes, arguments.seconds, log)
            print(
                f'guard in the graph, {rate_hz} Hz, '
                f'{"with" if figures["sched_fifo"] else "without"} SCHED_FIFO: '
                f'step p50 {figures["step_p50_ms"]:.3f} ms, p99 {figures["step_p99_ms"]:.3f} ms; '
                f'tick p50 {figures["tick_p50_ms"]:.3f} ms, p99 {figures["tick_p99_ms"]:.3f} ms; '
                f'lateness p99 {figures["lateness_p99_ms"]:.3f} ms',
                flush=True,
            )
    write(output, {'seconds': arguments.seconds, **results})
    return 0


if __name__ == '__main__':
    sys.exit(main())
