# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""ROS nodes: each decodes a message, calls its core with the time, and publishes."""

import os
import signal
import sys
from typing import NoReturn


def _end(*_: object) -> NoReturn:
    os._exit(0)


# Only where a bring-up starts one by `python -m`, which is still looking for it: whoever ends it
# while its modules are read, which takes a second, gets no traceback of an import.
if sys.argv[:1] == ['-m']:
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
