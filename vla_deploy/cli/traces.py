# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Find recorded episodes, add them up, and say which succeeded.

    ros2 run vla_deploy traces query --dir traces --since 7d --status failed
    ros2 run vla_deploy traces summary --dir traces --by task
    ros2 run vla_deploy traces label traces/franka_2026-03-01_12-00-00 --success
    ros2 run vla_deploy traces repair traces/franka_2026-03-01_12-00-00

Exit code 0: done, also where nothing was found. 2: an error.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_deploy.cli.output import interruptible, one_line, unforeseen
from vla_deploy.demo.statistics import percentiles_ms, wilson_interval
from vla_deploy.files import FileError, check_writable, write_bytes
from vla_deploy.trace.bag import Bag, BagError
from vla_deploy.trace.episodes import FAILED, SUCCESS, UNKNOWN
from vla_deploy.trace.index import TraceIndexError, open_index, update
from vla_deploy.trace.labels import label
from vla_deploy.trace.query import (
    GROUPS,
    LARGEST,
    Filter,
    Found,
    Group,
    QueryError,
    find,
    since_ns,
    summarise,
)
from vla_deploy.trace.repair import repair

_RANKS = ('p50', 'p95', 'p99', 'max')
_MS = tuple(f'{rank}_ms' for rank in _RANKS)
# Columns of what is written; a table shows some of them.
_EPISODE = ('begin', 'robot', 'task', 'status', 'said_by', 'duration_s', 'chunks', 'refused',
            'violations', 'stopped', *_MS, 'model', 'session_id', 'bag', 'episode')  # fmt: skip
_GROUP = ('episodes', 'judged', 'successes', 'success_rate', 'low', 'high', *_MS)
_TASK_SHOWN, _DIGEST_SHOWN = 40, 8
_ERRORS = (BagError, FileError, QueryError, TraceIndexError, OSError)


@interruptible('traces')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except _ERRORS as error:
        print(f'traces: {one_line(error)}', file=sys.stderr)
        return 2
    except Exception as error:  # noqa: BLE001 - said in one line, kept whole in a file
        print(f'traces: {unforeseen("traces", error)}', file=sys.stderr)
        return 2
    return 0


def _query(arguments: argparse.Namespace) -> None:
    rows = [_episode_row(episode) for episode in _found(arguments)]
    shown = ['begin', 'robot', 'task', 'status', 'duration_s', 'chunks', 'refused', 'violations',
             'stopped', 'p50_ms', 'p95_ms', 'model', 'bag', 'episode']  # fmt: skip
    _give(arguments.output, rows, _EPISODE, shown, 'episodes')


def _summary(arguments: argparse.Namespace) -> None:
    groups = summarise(_found(arguments), arguments.by)
    rows = [_group_row(arguments.by, group) for group in groups]
    shown = [arguments.by, 'episodes', 'judged', 'success_rate', 'low', 'high',
             *_MS]  # fmt: skip
    _give(arguments.output, rows, (arguments.by, *_GROUP), shown, 'groups')


def _label(arguments: argparse.Namespace) -> None:
    episode = label(arguments.bag, arguments.episode, arguments.result)
    said = arguments.result or 'no label'
    print(f'{arguments.bag}: {episode.task!r}: {said}')


def _repair(arguments: argparse.Namespace) -> None:
    bag = Bag(arguments.bag)
    path = arguments.bag.resolve()  # '.' has no name of its own
    repaired = repair(bag, arguments.output or path.with_name(f'{path.stem}_repaired'))
    print(f'traces: {repaired.cut}', file=sys.stderr)
    print(f'{repaired.folder}: {repaired.messages} messages')


def _found(arguments: argparse.Namespace) -> list[Found]:
    check_writable(arguments.output)
    since = since_ns(arguments.since, time.time_ns()) if arguments.since else 0
    database = open_index(arguments.dir, arguments.index)
    updated = update(database, arguments.dir)
    for path, problem in updated.problems.items():
        said = problem if problem.startswith(str(path)) else f'{path}: {problem}'
        print(f'traces: {said}', file=sys.stderr)
    return find(database, Filter(since, arguments.task, arguments.status, arguments.model,
                                 arguments.robot, getattr(arguments, 'limit', 0)))  # fmt: skip


def _episode_row(episode: Found) -> dict[str, Any]:
    values = (
        episode.begin, episode.robot, episode.task, episode.result, episode.source,
        round(episode.duration_s, 3), episode.chunks, episode.refused, episode.violations,
        episode.stopped, *(_rounded(getattr(episode, f'{rank}_ms')) for rank in _RANKS),
        episode.model_sha256, episode.session_id, episode.bag, episode.number,
    )  # fmt: skip
    return dict(zip(_EPISODE, values, strict=True))


def _group_row(by: str, group: Group) -> dict[str, Any]:
    judged = group.successes + group.failures
    low, high = wilson_interval(group.successes, judged)
    latency = percentiles_ms((group.latency_ms * 1e-3).tolist())
    values = (
        group.name, group.episodes, judged, group.successes,
        round(group.successes / judged, 4) if judged else None, round(low, 4), round(high, 4),
        *(_rounded(latency.get(rank)) for rank in _RANKS),
    )  # fmt: skip
    return dict(zip((by, *_GROUP), values, strict=True))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _give(
    output: Path | None, rows: list[dict[str, Any]], columns: Sequence[str], shown: list[str],
    what: str,
) -> None:
    """Show a table of some columns, or write all of them to a file."""
    if output is None:
        print('\n'.join(_table(rows, shown)) if rows else f'no {what}')
        return
    if output.suffix == '.json':
        text = json.dumps(rows, indent=1) + '\n'
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns)
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    write_bytes(output, text.encode('utf-8'))
    print(f'{output}: {len(rows)} {what}')


def _table(rows: list[dict[str, Any]], shown: list[str]) -> list[str]:
    cells = [shown] + [[_cell(name, row[name]) for name in shown] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(shown))]
    numbers = [not isinstance(rows[0][name], str) for name in shown]
    return [
        '  '.join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        ).rstrip()
        for line in cells
    ]


def _cell(name: str, value: Any) -> str:
    text = '-' if value is None else ' '.join(str(value).split())
    if name == 'model':
        return text[:_DIGEST_SHOWN]
    if name == 'task' and len(text) > _TASK_SHOWN:
        return text[: _TASK_SHOWN - 1] + '…'
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='traces', description='Recorded episodes.')
    verbs = parser.add_subparsers(dest='verb', required=True)
    query = verbs.add_parser('query', help='list episodes, the newest first')
    query.add_argument('--limit', type=_positive, default=0, metavar='N', help='the newest N')
    query.set_defaults(run=_query)
    summary = verbs.add_parser('summary', help='success rate (95 %% interval) and latencies')
    summary.add_argument('--by', choices=GROUPS, required=True, help='what to add up by')
    summary.set_defaults(run=_summary)
    for verb in (query, summary):
        verb.add_argument('--dir', type=Path, required=True, metavar='D', help='folder of the bags')
        verb.add_argument('--index', type=Path, metavar='FILE', help='where the index lies, if not '
                          'in that folder')  # fmt: skip
        verb.add_argument('--since', default='', metavar='7d', help='that began within a '
                          'span before now, in s, m, h, d or w (90m, 7d), or since a local date or '
                          'time (2026-03-01, 2026-03-01T12:00)')  # fmt: skip
        verb.add_argument('--task', default='', metavar='T', help='part of the instruction, '
                          'in whatever case')  # fmt: skip
        verb.add_argument('--status', default='', choices=(SUCCESS, FAILED, UNKNOWN),
                          help='as labelled, else as the action ended')  # fmt: skip
        verb.add_argument('--model', default='', metavar='H', help='beginning of its digest')
        verb.add_argument('--robot', default='', metavar='R', help='name of the robot')
        verb.add_argument('--output', type=_output, metavar='F.json|csv', help='write, not show')
    said = verbs.add_parser('label', help='say whether an episode succeeded')
    said.add_argument('bag', type=Path, metavar='BAG', help='folder of the bag')
    said.add_argument('--episode', type=int, metavar='N', help='which of several, from 0')
    results = said.add_mutually_exclusive_group(required=True)
    for option, result in (('--success', SUCCESS), ('--failure', FAILED), ('--clear', None)):
        results.add_argument(option, dest='result', action='store_const', const=result)
    said.set_defaults(run=_label)
    mend = verbs.add_parser('repair', help='make a closed bag of one whose recorder was killed')
    mend.add_argument('bag', type=Path, metavar='BAG', help='folder or .mcap of the bag')
    mend.add_argument('--output', type=Path, metavar='DIR', help='new folder (BAG_repaired)')
    mend.set_defaults(run=_repair)
    return parser


def _positive(text: str) -> int:
    if not re.fullmatch('[0-9]{1,19}', text) or not 0 < int(text) <= LARGEST:
        raise argparse.ArgumentTypeError(f'{text!r} is no number of episodes')
    return int(text)


def _output(text: str) -> Path:
    if Path(text).suffix not in ('.json', '.csv'):
        raise argparse.ArgumentTypeError(f'{text!r} ends neither in .json nor in .csv')
    return Path(text)


if __name__ == '__main__':
    sys.exit(main())
