# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""One chunk at a time on a device, whichever thread or process computes it.

A card that two processes use divides its time into slices: of two chunks that are computed at once
each takes as long as both, and longer for the changing to and fro. In turns the first takes as long
as it does alone, and the second waits for what is left of the first.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_S = 0.1  # longer than one observation takes at 16 bits
POLL_S = 5e-5  # since nothing tells that a name is free again


class DeviceTurn:
    """Turns on a device, of all that name it alike.

    They are taken by the name of a socket, which has one owner at a time, is free again however
    its process ends, leaves no file, and is the same for containers in the host's network.
    """

    def __init__(self, device: str, longest_s: float = LONGEST_S) -> None:
        """`longest_s`: what has waited for so long goes on beside the other, which has stopped or
        computes for longer, and waits no more until it had a turn again."""
        self._address, self._longest_s = f'\0vla_deploy/{device}', longest_s
        self._came = True  # the last turn, in time

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Wait for the turn and have it within; yields whether it came in time."""
        end_s = time.monotonic() + (self._longest_s if self._came else 0.0)
        with socket.socket(socket.AF_UNIX) as own:
            while not (came := self._takes(own)) and time.monotonic() < end_s:
                time.sleep(POLL_S)
            self._came = came
            yield came

    def _takes(self, own: socket.socket) -> bool:
        try:
            own.bind(self._address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True
