# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""`validate dataset`: check a LeRobot data set before a policy is trained on it.

    ros2 run vla_deploy validate dataset PATH --robot so101

Exit code 0: every check passed. 1: one failed or could not run; with --strict a warning too.
2: an error: no such folder or robot, or a package that is not installed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vla_deploy.cli.guarded_robot import ERRORS, guarded_robot
from vla_deploy.cli.output import one_line
from vla_deploy.files import check_writable, write_bytes

if TYPE_CHECKING:
    from vla_deploy.trace.dataset_checks import Checked

_MARKS = {'pass': 'ok', 'warn': 'WARN', 'fail': 'FAIL', 'not run': 'NOT RUN'}


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        from vla_deploy.trace.dataset_checks import check_dataset
    except ImportError as error:
        print(f'validate: {error}; pip install pyarrow av', file=sys.stderr)
        return 2
    if not arguments.path.is_dir():
        print(f'validate: {arguments.path}: is no folder', file=sys.stderr)
        return 2
    try:
        check_writable(arguments.output_json)
        limits = guarded_robot(arguments.robot).limits
        checks = check_dataset(arguments.path, limits)
        bad = {'fail', 'not run', *(['warn'] if arguments.strict else [])}
        passed = not any(check.status in bad for check in checks)
        _tell(checks, passed)
        if arguments.output_json is not None:
            result = {'path': str(arguments.path), 'robot': arguments.robot, 'passed': passed,
                      'checks': [asdict(check) for check in checks]}  # fmt: skip
            text = json.dumps(result, indent=1, sort_keys=True) + '\n'
            write_bytes(arguments.output_json, text.encode('ascii'))
    except (*ERRORS, OSError) as error:
        print(f'validate: {one_line(error)}', file=sys.stderr)
        return 2
    return 0 if passed else 1


def _tell(checks: Sequence[Checked], passed: bool) -> None:
    for check in checks:
        print(f'{_MARKS[check.status]:8s} {check.name:15s} {check.found}')
        if check.mend:
            print(f'{"":8s} {"":15s} → {check.mend}')
    print('PASS' if passed else 'FAIL', flush=True)


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to the parser of `validate`."""
    dataset = verbs.add_parser('dataset', help='check a LeRobot data set (v3.0 or v2.1)')
    dataset.add_argument('path', type=Path, metavar='PATH', help='folder with meta/ and data/')
    dataset.add_argument('--robot', required=True, metavar='R', help='whose joints and limits')
    dataset.add_argument('--strict', action='store_true', help='a warning fails, too')
    dataset.add_argument('--output-json', type=Path, metavar='FILE', help='write the result here')
    dataset.set_defaults(run=run)
