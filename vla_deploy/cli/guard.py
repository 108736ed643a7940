# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""`ros2 run vla_deploy guard`: the guard's tools, and without a tool's name the guard itself.

    ros2 run vla_deploy guard explain --chunk FILE --robot ROBOT
    ros2 run vla_deploy guard check_limits --robot ROBOT
    ros2 run vla_deploy guard --ros-args --params-file FILE
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

NODE = 'vla_deploy.nodes.guard'
TOOLS = {
    'explain': 'say what the guard finds in a chunk or a log',
    'check_limits': 'show the limits in force and where each comes from',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a tool and return its exit code; else become the process of the node."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    tool = arguments[0] if arguments else ''
    if tool == 'explain':
        from vla_deploy.cli import guard_explain

        return guard_explain.main(arguments[1:])
    if tool == 'check_limits':
        from vla_deploy.cli import guard_limits

        return guard_limits.main(arguments[1:])
    if tool and not tool.startswith('-'):
        known = ', '.join(TOOLS)
        print(f'guard: unknown tool {tool!r}; known: {known}; without one the node starts',
              file=sys.stderr)
        return 2
    if tool in ('-h', '--help'):
        lines = [f'  guard {name} …  {what}' for name, what in TOOLS.items()]
        print('tools (each with --help):', *lines, '', 'without a tool, the node:', sep='\n',
              flush=True)
    # The process becomes the node's, so that signals and the exit code are the node's own.
    os.execv(sys.executable, [sys.executable, '-m', NODE, *arguments])


if __name__ == '__main__':
    sys.exit(main())
