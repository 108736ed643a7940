# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How much the commands jump where one chunk takes over from the other, by strategy.

    python bench/continuity.py [OUTPUT.json] [--episodes 50] [--latency-ms 80] [--picture PNG]

Physics, controller, guard, session, strategy and policy are those that the nodes run; time is
simulated, so that the load of the machine changes nothing. A jump is how far the target of a joint
moves over one period: inside a chunk between two samples, at a hand-over between the last sample of
the old chunk that was consumed and the new chunk one period later.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tools' / 'train')]

from _record import parser, write  # noqa: E402
from reach_rollout import LATENCY_TICKS, OPTIONS, TICK_NS, Loop  # noqa: E402
from rollout_policy import served_policy  # noqa: E402

from vla_deploy.core.chunk import Chunk  # noqa: E402
from vla_deploy.core.guard_io import Outputs  # noqa: E402
from vla_deploy.export.own_bundle import bundle_for  # noqa: E402
from vla_deploy.pipeline import Policy  # noqa: E402
from vla_deploy.sim import reach  # noqa: E402

STRATEGIES = ('synchronous', 'asynchronous', 'ensembling', 'real_time_chunking')
PERIOD_NS = round(reach.STEP_PERIOD_S * 1e9)
Vector = NDArray[np.float64]


@dataclass
class Jumps:
    """What is seen of the episodes of one strategy; jumps in rad."""

    hand_over: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    tick_after_hand_over: list[float] = field(default_factory=list)
    tick_inside: list[float] = field(default_factory=list)
    standing_ticks: int = 0
    line: list[Vector] = field(default_factory=list)  # commanded, each tick of the first episode
    _chunks: dict[int, Chunk] = field(default_factory=dict)
    _running: tuple[int, int] | None = None
    _commanded: Vector | None = None
    _handed_over_ns: int = 0
    episodes: int = 0

    def begin(self) -> None:
        """Forget the episode before."""
        self._chunks, self._running, self._commanded = {}, None, None
        self.episodes += 1

    def watch(self, out: Outputs, chunks: tuple[Chunk, ...]) -> None:
        """Take in one step of the guard."""
        self._chunks |= {chunk.seq: chunk for chunk in chunks}
        done = out.execution
        self._watch_command(done.commanded_position, done.stamp_ns)
        if not done.has_plan:
            self.standing_ticks += bool(self._chunks)
            return
        before, now = self._running, (done.seq, done.next_index)
        self._running = now
        if before is None:
            return
        data = self._chunks[now[0]].data
        if before[0] != now[0]:
            self._hand_over(before, now[0], done.stamp_ns)
        for i in range(max(before[1], 1), now[1]) if before[0] == now[0] else ():
            self.inside.append(float(np.abs(data[i] - data[i - 1]).max()))

    def _hand_over(self, before: tuple[int, int], seq: int, now_ns: int) -> None:
        old, new = self._chunks[before[0]], self._chunks[seq]
        last = min(before[1], len(old.data)) - 1
        if last < 0:
            return
        self._handed_over_ns = now_ns
        at = (old.stamp_ns + (last + 1) * PERIOD_NS - new.stamp_ns) / PERIOD_NS
        at = min(max(at, 0.0), len(new.data) - 1.0)
        i = min(int(at), len(new.data) - 2)
        target = new.data[i] + (at - i) * (new.data[i + 1] - new.data[i])
        self.hand_over.append(float(np.abs(target - old.data[last]).max()))

    def _watch_command(self, commanded: Vector | None, now_ns: int) -> None:
        if commanded is not None and self._commanded is not None:
            step = float(np.abs(commanded - self._commanded).max())
            after = now_ns - self._handed_over_ns <= PERIOD_NS
            (self.tick_after_hand_over if after else self.tick_inside).append(step)
        self._commanded = commanded
        if self.episodes == 1 and commanded is not None:
            self.line.append(commanded)

    def figures(self) -> dict[str, Any]:
        """Return what is written down."""
        found: dict[str, Any] = {'hand_overs': len(self.hand_over)}
        for name in ('hand_over', 'inside', 'tick_after_hand_over', 'tick_inside'):
            values = np.array(getattr(self, name))
            found[name] = {
                'max_rad': float(values.max()),
                'p95_rad': float(np.percentile(values, 95)),
                'mean_rad': float(values.mean()),
            }
        found['standing_s_an_episode'] = self.standing_ticks * TICK_NS * 1e-9 / self.episodes
        return found


def measure(policy: Policy, strategy: str, episodes: int, latency_ms: float) -> tuple[Jumps, int]:
    """Run episodes with one strategy; return what was seen, and how many cubes were reached."""
    jumps = Jumps()
    latency_ticks = LATENCY_TICKS + round(latency_ms * 1e6 / TICK_NS)
    options = replace(OPTIONS, name=strategy)
    reached = 0
    with Loop(served_policy(policy), options, latency_ticks, jumps.watch) as loop:
        for seed in range(episodes):
            jumps.begin()
            reached += loop.run('named', seed).distance_m <= reach.SUCCESS_M
    return jumps, reached


def draw(path: Path, seen: dict[str, Jumps], latency_ms: float) -> None:
    """Draw the largest jumps of each strategy, and the commands of one episode."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout='constrained')
    places = np.arange(len(seen))
    for offset, name, label in ((-0.2, 'hand_over', 'at hand-over'), (0.2, 'inside', 'in chunks')):
        largest = [max(getattr(jumps, name)) for jumps in seen.values()]
        mean = [float(np.mean(getattr(jumps, name))) for jumps in seen.values()]
        left.bar(places + offset, largest, 0.38, label=f'largest {label}')
        left.plot(places + offset, mean, 'k_', markersize=14, label='mean' if offset > 0 else None)
    left.set_xticks(places, [name.replace('_', '\n') for name in seen])
    left.set_ylabel('target moves in one period [rad]')
    left.set_title(f'{next(iter(seen.values())).episodes} episodes, {latency_ms:.0f} ms injected')
    left.legend()
    for name, jumps in seen.items():
        line = np.array(jumps.line)
        joint = int(np.ptp(line, axis=0).argmax())
        time_s = np.arange(len(line)) * TICK_NS * 1e-9
        right.plot(time_s, line[:, joint], label=name.replace('_', ' '))
    right.set_xlabel('time [s]')
    right.set_ylabel(f'commanded position of {reach.JOINTS[joint]} [rad]')
    right.set_title('one episode')
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> int:
    """Measure each strategy; return 1 where real-time chunking jumps more than its chunks do."""
    options = parser(__doc__ or '', 'continuity')
    options.add_argument('--episodes', type=int, default=50)
    options.add_argument('--latency-ms', type=float, default=80.0)
    options.add_argument('--picture', type=Path, help='default: beside the output')
    arguments = options.parse_args()
    policy = Policy.load(str(bundle_for('franka', '')), threads=1)
    seen, figures = {}, {}
    for strategy in STRATEGIES:
        jumps, reached = measure(policy, strategy, arguments.episodes, arguments.latency_ms)
        seen[strategy] = jumps
        figures[strategy] = found = {**jumps.figures(), 'reached': reached}
        print(
            f'{strategy}: largest jump at hand-over {found["hand_over"]["max_rad"]:.4f} rad, '
            f'in chunks {found["inside"]["max_rad"]:.4f} rad; largest command of a tick '
            f'{found["tick_after_hand_over"]["max_rad"]:.4f} rad after a hand-over, '
            f'{found["tick_inside"]["max_rad"]:.4f} rad else; {reached} of {arguments.episodes} '
            f'reached, {found["standing_s_an_episode"]:.2f} s standing',
            flush=True,
        )
    settings = {'episodes': arguments.episodes, 'latency_ms': arguments.latency_ms}
    write(arguments.output, {**settings, 'strategies': figures})
    draw(arguments.picture or arguments.output.with_suffix('.png'), seen, arguments.latency_ms)
    guided = figures['real_time_chunking']
    return int(guided['hand_over']['max_rad'] > guided['inside']['max_rad'])


if __name__ == '__main__':
    sys.exit(main())
