# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Show the limits in force for a robot, where each comes from, and which are placeholders.

    ros2 run vla_deploy guard check_limits --robot franka [--urdf FILE] [--json]

Exit code 0: they can be used. 2: the guard would not configure; the line says why.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_deploy.cli.guarded_robot import ERRORS, GuardedRobot, guarded_robot
from vla_deploy.cli.output import interruptible
from vla_deploy.core.limit_sources import figures_of

PLACEHOLDER = 'PLACEHOLDER'


@interruptible('guard check_limits')
def main(argv: Sequence[str] | None = None) -> int:
    """Print the limits and return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        robot = guarded_robot(arguments.robot, arguments.urdf)
    except ERRORS as error:
        print(f'guard check_limits: {error}', file=sys.stderr)
        return 2
    report = limits_report(robot)
    print(json.dumps(report, indent=2) if arguments.json else limits_table(report))
    return 0


def limits_report(robot: GuardedRobot) -> dict[str, Any]:
    """Return the limits as JSON values; a bound that does not exist is null."""
    entries = robot.overlay['joint_limits']
    return {
        'robot': robot.name,
        'urdf': str(robot.urdf_path),
        'limits': str(robot.limits_path),
        'limits_sha256': robot.limits.sha256,
        'joints': [
            {
                'name': limit.name,
                'kind': limit.kind,
                'placeholder': limit.placeholder,
                'figures': [
                    {'name': f.name, 'value': f.value if abs(f.value) < float('inf') else None,
                     'unit': f.unit, 'source': f.source}
                    for f in figures_of(limit, robot.urdf.joints[limit.name],
                                        entries[limit.name])
                ],
            }
            for limit in robot.limits.joints
        ],
        'workspace': [
            {'name': region.name, 'links': list(region.links), 'source': region.source}
            for region in (robot.limits.workspace.regions if robot.limits.workspace else ())
        ],
        'notes': list(robot.limits.notes),
    }


def limits_table(report: dict[str, Any]) -> str:
    """Return the report as lines of text."""
    rows = [('joint', 'limit', 'value', 'unit', '', 'source')]
    for joint in report['joints']:
        mark = PLACEHOLDER if joint['placeholder'] else ''
        rows += [
            (joint['name'], f['name'], 'none' if f['value'] is None else f'{f["value"]:g}',
             f['unit'], mark if not f['source'].startswith('URDF') else '', f['source'])
            for f in joint['figures']
        ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        '  '.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]])
        for row in rows
    ]
    lines += [
        f'workspace {region["name"]}: {", ".join(region["links"])} ({region["source"]})'
        for region in report['workspace']
    ]
    placeholders = [j['name'] for j in report['joints'] if j['placeholder']]
    told = (f'placeholders, not ratings: {", ".join(placeholders)}; the guard becomes active only '
            'with accept_placeholder_limits' if placeholders else 'no placeholders')
    return '\n'.join([
        f'{report["robot"]}: {len(report["joints"])} joints, limits_sha256 '
        f'{report["limits_sha256"]}',
        f'URDF {report["urdf"]}',
        f'limits {report["limits"]}', '', *(line.rstrip() for line in lines), '', told,
    ])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='guard check_limits',
        description='Show the limits in force, the source of each, and which are placeholders.',
    )
    parser.add_argument('--robot', required=True, help='a robot of config/, as franka')
    parser.add_argument(
        '--urdf', type=Path, metavar='FILE', help='description to use instead of its own'
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    return parser


if __name__ == '__main__':
    sys.exit(main())
