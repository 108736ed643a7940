# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Say which rule a chunk breaks: sample, joint, value and limit.

    ros2 run vla_deploy guard explain --chunk FILE --robot franka
    ros2 run vla_deploy guard explain --bag TRACE                  what the guard found at the time
    ros2 run vla_deploy guard explain --bag TRACE --robot franka   what it would find now

TRACE is an audit log of the guard, or a bag.
Exit code 0: nothing. 1: something was found. 2: an error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla_deploy.cli import guard_bag
from vla_deploy.cli.chunk_file import read_chunk
from vla_deploy.cli.guarded_robot import ERRORS, guarded_robot
from vla_deploy.cli.output import interruptible, one_line
from vla_deploy.core.audit_file import AuditError
from vla_deploy.core.explain import Arrival, Explained, arrival_of_plan, judge
from vla_deploy.core.violation import Violation
from vla_deploy.trace.bag import BagError

COLUMNS = ('sample', 'joint', 'rule', 'value', 'limit', 'unit', 'action')


@interruptible('guard explain')
def main(argv: Sequence[str] | None = None) -> int:
    """Print what is found and return the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.chunk and not arguments.robot:
        parser.error('--chunk needs --robot: whose limits?')
    if arguments.urdf and not arguments.robot:
        parser.error('--urdf needs --robot: what the guard found then does not depend on it')
    try:
        explained = list(_explain(arguments))
    except (AuditError, BagError, OSError, *ERRORS) as error:
        print(f'guard explain: {one_line(error)}', file=sys.stderr)
        return 2
    found = [e for e in explained if e.violations or e.verdict == 'refused']
    if arguments.json:
        print(json.dumps([_as_json(e) for e in found], indent=2))
    else:
        print(_text(found, len(explained)))
    return 1 if found else 0


def _explain(arguments: argparse.Namespace) -> Iterable[Explained]:
    if arguments.bag and not arguments.robot:
        return guard_bag.recorded(arguments.bag)
    robot = guarded_robot(arguments.robot, arguments.urdf)
    if arguments.chunk:
        arrivals: Iterable[Arrival] = arrival_of_plan(*read_chunk(arguments.chunk))
    else:
        arrivals = guard_bag.arrivals(arguments.bag)
    return judge(arrivals, robot.limits, robot.config)


def _text(found: list[Explained], count: int) -> str:
    lines = []
    for explained in found:
        chunk = f'chunk {explained.seq} of session {explained.session_id}: '
        lines.append(f'{explained.now_ns * 1e-9:.3f} s  {chunk if explained.session_id else ""}'
                     f'{explained.verdict}')
        rows = [COLUMNS, *(_row(v) for v in explained.violations)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        for row, violation in zip(rows, (None, *explained.violations), strict=True):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            said = '' if violation is None else violation.message
            lines.append(('  ' + '  '.join([*cells, said])).rstrip())
    return '\n'.join([*lines, f'{count} judged, {len(found)} with something found'])


def _row(violation: Violation) -> tuple[str, ...]:
    return (
        '' if violation.sample < 0 else str(violation.sample), violation.joint, violation.rule,
        f'{violation.value:.6g}', f'{violation.limit:.6g}', violation.unit, violation.action.name,
    )


def _as_json(explained: Explained) -> dict[str, Any]:
    plain = asdict(explained)
    for violation in plain['violations']:
        violation['action'] = violation['action'].name
        for key in ('value', 'limit'):  # JSON has no NaN
            value = float(violation[key])
            violation[key] = value if math.isfinite(value) else repr(value)
    return plain


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='guard explain',
        description='Say which rule a chunk breaks: sample, joint, value and limit.',
        epilog='exit code 0: nothing found; 1: something; 2: an error. The form of FILE: '
        'docs/guard.md',
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--chunk', type=Path, metavar='FILE', help='a chunk as JSON or NPZ')
    what.add_argument(
        '--bag', type=Path, metavar='TRACE', help='a run: an audit log of the guard, or a bag'
    )
    parser.add_argument(
        '--robot', help='robot of config/ whose limits count; without it, what was found then'
    )
    parser.add_argument(
        '--urdf', type=Path, metavar='FILE', help="description to use instead of the robot's own"
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    return parser


if __name__ == '__main__':
    sys.exit(main())
