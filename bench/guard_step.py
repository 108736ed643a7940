# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a tick of the guard costs its process, and a chunk: plans of 50 samples, noisy ones, and
standing still. The core's step, and the whole tick with publishing and the journal.

For 7 and 14 joints, and for 7 whose jerk is limited, so that Ruckig makes their stops. Ticks follow
one another without a pause; in a graph, where caches are cold after each one, they take longer
(graph_latency.py). Each load runs several times with the same input to the bit: `alone` are the
percentiles of the fastest of each tick's runs, which is the work without what the machine does
beside it.

    python bench/guard_step.py [OUTPUT.json]       default build/bench/guard_step.json
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test' / 'fuzz')]

from _record import parser, write  # noqa: E402
from guard_world import HOME, START_NS, fr3_limits  # noqa: E402

from vla_deploy.core.audit import AuditLog  # noqa: E402
from vla_deploy.core.audit_config import AuditConfig  # noqa: E402
from vla_deploy.core.bounds import Bounds  # noqa: E402
from vla_deploy.core.chunk import Chunk, ControlMode  # noqa: E402
from vla_deploy.core.guard import GuardCore  # noqa: E402
from vla_deploy.core.guard_config import GuardConfig  # noqa: E402
from vla_deploy.core.guard_io import GuardState, Inputs, JointState, Outputs  # noqa: E402
from vla_deploy.core.journal import genesis_of  # noqa: E402
from vla_deploy.core.limits import JointLimits  # noqa: E402
from vla_deploy.core.outputs import TRAJECTORY, Output  # noqa: E402
from vla_deploy.ros import qos  # noqa: E402
from vla_deploy.ros.command_outputs import CommandOutputs  # noqa: E402
from vla_deploy.ros.execution_messages import ExecutionMessage  # noqa: E402
from vla_deploy.ros.guard_inputs import GuardInputs  # noqa: E402
from vla_deploy.ros.realtime import calm_interpreter  # noqa: E402
from vla_deploy.ros.transport import CONTROL, use_profile  # noqa: E402
from vla_deploy_msgs.msg import ExecutionState  # noqa: E402

TICKS = 3000
RUNS = 4
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


class Sender:
    """What the node does with a step beside making it: take the inputs, publish, keep a journal."""

    def __init__(self, node: Node, limits: JointLimits, config: GuardConfig, log: Path) -> None:
        names = limits.names
        output = Output('command', TRAJECTORY, names, tuple(range(len(names))))
        self._commands = CommandOutputs(node, [output], Bounds.of(limits, 0.0), config.period_s)
        self._execution = node.create_publisher(ExecutionState, 'execution', qos.EXECUTION_STATE)
        self._message = ExecutionMessage(names)
        self._log = AuditLog(log, AuditConfig(log_queue_length=1000000),
                             genesis_of(limits, config, {}, {}))
        self.inputs = GuardInputs()

    def send(self, now_ns: int, inputs: Inputs, out: Outputs) -> None:
        self._commands.send(now_ns, out.trajectory)
        self._log.step(now_ns, now_ns, inputs, out)
        self._execution.publish(self._message.fill(out.execution, out.state))

    def take_records(self) -> None:
        """Take what was handed over, as the log's thread does between two ticks: what is kept
        would have the next ones work in memory that is new each time."""
        while self._log._queue.qsize():
            self._log._queue.get()

    def close(self) -> None:
        self._log.close(60.0)


def run(kind: str, limits: JointLimits, node: Node, log: Path) -> dict[str, np.ndarray]:
    """Durations [s], in order, of the core's step in a tick, of the whole tick, and of the steps
    that chunks have of their own between two ticks; with a perfect robot."""
    config = GuardConfig(trip_count=100000)
    core, sender = GuardCore(limits, config), Sender(node, limits, config, log)
    rng = np.random.default_rng(1)
    joints = len(limits.names)
    position, now = np.tile(HOME, joints // len(HOME)), START_NS
    durations: dict[str, list[float]] = {'step': [], 'tick': [], 'chunk': []}
    calm_interpreter()  # as the node does

    def step(inputs: Inputs, began: float) -> Outputs:
        step_began = time.perf_counter()
        out = core.step(now, now, inputs)
        step_ended = time.perf_counter()
        sender.send(now, inputs, out)
        if inputs.chunks:
            durations['chunk'].append(time.perf_counter() - began)
        else:
            durations['step'].append(step_ended - step_began)
            durations['tick'].append(time.perf_counter() - began)
        sender.take_records()
        return out

    for i in range(TICKS):
        now += 10_000_000
        state = JointState(now, limits.names, position, np.zeros(joints))
        began = time.perf_counter()
        out = step(sender.inputs.take(joint_state=state, arm=i == 2), began)
        if kind != 'hold' and i % TICKS_PER_CHUNK == 5:
            now += 3_000_000
            noise = rng.normal(0, 0.02 if kind == 'noisy' else 0.0, (50, joints))
            chunk = Chunk('a', i, now, now, now + 10**9, 0.05, ControlMode.POSITION,
                          limits.names, plan(i * 0.01, noise))
            began = time.perf_counter()
            step(sender.inputs.take(chunks=(chunk,)), began)
            now -= 3_000_000
        if out.execution.commanded_position is not None:
            position = out.execution.commanded_position
    sender.close()
    expected = GuardState.HOLD if kind == 'hold' else GuardState.ARMED
    if core.state is not expected:
        raise SystemExit(f'guard_step: the guard is {core.state.name}: nothing was measured')
    return {name: np.array(values[WARM_UP * len(values) // TICKS:])
            for name, values in durations.items() if values}


def measure(
    kind: str, limits: JointLimits, node: Node, folder: Path
) -> dict[str, dict[str, dict[str, float]]]:
    """Percentiles of a load, of all runs together and of the fastest run of each tick."""
    runs = [run(kind, limits, node, folder / str(i)) for i in range(RUNS)]
    figures = {}
    for what in runs[0]:
        times = np.array([one[what] for one in runs])
        figures[what] = {'all': percentiles(times.ravel()), 'alone': percentiles(times.min(axis=0))}
    return figures


def percentiles(values: np.ndarray) -> dict[str, float]:
    return dict(zip(('p50_s', 'p95_s', 'p99_s', 'max_s'),
                    np.percentile(values, [50, 95, 99, 100]).tolist(), strict=True))


def main() -> int:
    """Print a line for each load and number of joints, and write them as JSON."""
    arguments = parser(__doc__ or '', 'guard_step').parse_args()
    use_profile(CONTROL)
    rclpy.init()
    node = Node('guard_step')
    results: dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, limits in (('7 joints', arms(1)), ('14 joints', arms(2)),
                             ('7 joints, jerk', arms(1, JERK))):
            figures = results[name] = {}
            for kind in ('plan', 'noisy', 'hold'):
                figures[kind] = measure(kind, limits, node, Path(folder) / f'{name} {kind}')
                for what, rows in figures[kind].items():
                    text = ' | '.join(f'{which} ' + '  '.join(
                        f'{key[:-2]} {value * 1e6:.0f}' for key, value in row.items()
                    ) for which, row in rows.items())
                    print(f'guard, {name}, {kind}: {what} [us] {text}', flush=True)
    rclpy.shutdown()
    write(arguments.output, {'ticks': TICKS, 'runs': RUNS, 'results': results})
    return 0


if __name__ == '__main__':
    sys.exit(main())
