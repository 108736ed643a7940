# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Command-line verbs, one file each."""

import sys
from pathlib import Path
from types import TracebackType

from vla_deploy.cli.output import INTERRUPTED


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print('interrupted', file=sys.stderr)
    sys.exit(INTERRUPTED)


# Only where a verb is what this process was started for, by `python -m` or from lib/vla_deploy:
# Ctrl-C while its modules are read, which takes seconds, gives no traceback of an import.
_program = ''.join(sys.argv[:1])
if _program == '-m' or Path(_program).parent.name == 'vla_deploy':
    sys.excepthook = _show
