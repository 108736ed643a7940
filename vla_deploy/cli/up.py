# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Start the processes of a robot, on machines with or without the launch stack.

    ros2 run vla_deploy up franka sim:=true instruction:='reach the red cube'
    python -m vla_deploy.cli.up franka sim:=true
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import textwrap
import threading
from collections.abc import Sequence

from vla_deploy.bringup import BringUpOptions, bring_up, options_from_arguments, robots
from vla_deploy.cli.output import one_line
from vla_deploy.core.parameter import Parameter, ParameterError, parameters_of
from vla_deploy.export.own_bundle import BundleUnavailable, bundle_for
from vla_deploy.files import FileError
from vla_deploy.supervisor import Supervisor

_COLUMN, _WIDTH = 28, 80  # of the help


def main(argv: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C (exit 0), or until a process ends by itself (exit 1)."""
    arguments = _parser().parse_args(argv)
    try:
        options = options_from_arguments(arguments.options)
        bundle = bundle_for(arguments.robot, options.bundle) if options.inference else None
        processes = bring_up(arguments.robot, options, bundle)
    except (ParameterError, BundleUnavailable, FileError, OSError) as error:
        print(f'up: {one_line(error)}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('up: interrupted, nothing was started', file=sys.stderr)
        return 0
    if arguments.print_commands:
        for process in processes:
            print(f'{process.name}: {shlex.join(process.command)}')
        return 0
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    supervisor = Supervisor(processes)
    try:
        problem = ''
        while not stop.wait(0.1) and not problem:
            problem = supervisor.poll()
    finally:
        killed = supervisor.end()
    if problem:
        print(f'up: {problem}; ended the others', file=sys.stderr)
    for name in killed:
        print(f'up: {name} did not end on SIGINT and was killed', file=sys.stderr)
    return 1 if problem or killed else 0


def _described(declared: Parameter) -> str:
    """One option with its default, and beside it what it says, in two columns."""
    default = str(declared.default).lower() if declared.python_type is bool else declared.default
    left = f'  {declared.name}:={default}'
    said = textwrap.fill(declared.description, _WIDTH, initial_indent=_COLUMN * ' ',
                         subsequent_indent=_COLUMN * ' ')
    return f'{left}\n{said}' if len(left) > _COLUMN - 2 else left + said[len(left):]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='up',
        description='Start the processes of a robot; Ctrl-C ends them all.',
        epilog='name:=value, each with its default:\n' + '\n'.join(
            map(_described, parameters_of(BringUpOptions))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('robot', choices=robots(), help='which robot')
    # with a default, or argparse counts them among what is required
    parser.add_argument(
        'options', nargs='*', default=[], metavar='name:=value', help='as listed below'
    )
    parser.add_argument(
        '--print-commands', action='store_true', help='print what would be started, and end'
    )
    return parser


if __name__ == '__main__':
    sys.exit(main())
