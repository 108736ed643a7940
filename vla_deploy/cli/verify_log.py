# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Say whether an audit log of the guard is whole.

    ros2 run vla_deploy verify_log LOG [--head HASH]
    python -m vla_deploy.cli.verify_log LOG

Exit code 0: whole. 1: tampered with, and in which record. 2: there is no log, or no right to it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from vla_deploy.cli.output import interruptible
from vla_deploy.core.audit_file import TamperedError, UnreadableError, verify_log


@interruptible('verify_log')
def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code that the module describes."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.head and not re.fullmatch('[0-9a-f]{64}', arguments.head):
        parser.error(f'--head is {arguments.head!r}, not a hash of 64 hexadecimal digits')
    try:
        result = verify_log(arguments.log, arguments.head)
    except (TamperedError, UnreadableError) as error:
        print(f'verify_log: {error}', file=sys.stderr)
        return 1 if isinstance(error, TamperedError) else 2
    end = 'closed' if result.closed else (
        'not closed: the guard still runs, or was killed')
    if not result.closed and not arguments.head:
        end += '; give --head, else a cut tail does not show'
    print(f'{arguments.log}: whole: {result.records} records in {result.files} file(s), {end}\n'
          f'head {result.head}')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='verify_log', description='Say whether an audit log of the guard is whole.',
        epilog='exit code 0: whole; 1: tampered with, and in which record; 2: no log, or not '
        'readable',
    )
    parser.add_argument(
        'log', type=Path, metavar='LOG', help='folder of the log, or one of its files'
    )
    parser.add_argument(
        '--head', default='', metavar='HASH',
        help='a hash that the guard published (guard/status, /diagnostics: audit_head): a tail '
        'cut before it shows',
    )
    return parser


if __name__ == '__main__':
    sys.exit(main())
