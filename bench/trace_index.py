# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Indexing and querying 10,000 recorded episodes.

    python bench/trace_index.py [OUTPUT.json] [--episodes 10000]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test' / 'trace')]

from _record import parser, write  # noqa: E402
from bags import BEGIN_NS, Written, chunk  # noqa: E402

TASKS = ('reach the red cube', 'reach the blue cube', 'reach the green cube')
CHUNKS = 20
INDEX_BAR_PER_S, QUERY_BAR_S = 200, 1.0


def generate(folder: Path, episodes: int) -> None:
    """Write small bags, each of one episode and 20 chunks."""
    for number in range(episodes):
        bag = Written(folder / f'run_{number:05d}', 'franka', BEGIN_NS + number * 60 * 10**9)
        for seq in range(CHUNKS):
            message = chunk(f's{number}', seq, TASKS[number % 3], 0.02 + 1e-4 * (number % 97))
            bag.add('/action_chunk', message)
        bag.close()


def timed(*arguments: str) -> float:
    """Return how long the command takes as a user runs it, in seconds."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, '-m', 'vla_deploy.cli.traces', *arguments], check=True,
                   stdout=subprocess.DEVNULL, cwd=ROOT)  # fmt: skip
    return time.perf_counter() - begin


def main() -> int:
    """Return 1 if a bar is missed."""
    options = parser(__doc__ or '', 'trace_index')
    options.add_argument('--episodes', type=int, default=10_000)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        generate(folder, arguments.episodes)
        where = ('--dir', str(folder))
        index_s = timed('query', *where, '--limit', '10')
        query = {
            'all_s': timed('query', *where),
            'filtered_s': timed('query', *where, '--task', 'red', '--limit', '50'),
            'summary_s': timed('summary', *where, '--by', 'task'),
        }
    rate = arguments.episodes / index_s
    slowest_s = max(query.values())
    write(arguments.output, {'episodes': arguments.episodes, 'index_s': index_s,
                             'indexed_per_s': rate, **query})  # fmt: skip
    print(
        f'trace index, {arguments.episodes} episodes: {rate:.0f} indexed a second; '
        + ', '.join(f'{name[:-2]} {value:.2f} s' for name, value in query.items())
        + ' with the start of the process'
    )
    return 0 if rate >= INDEX_BAR_PER_S and slowest_s <= QUERY_BAR_S else 1


if __name__ == '__main__':
    sys.exit(main())
