# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Messages as bytes, as the middleware would write them: Common Data Representation (XCDR1).

For the messages that the guard sends in every tick. Its publishers take bytes as they take
messages; making message objects, and their conversion by the middleware, cost more than all the
rest of sending. Little endian, which the first bytes say, so every machine reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ENCAPSULATION = b'\x00\x01\x00\x00'
"""Plain CDR, little endian. What follows is aligned as if it began at 0."""


class CdrWriter:
    """Appends fields in the order of the message's definition."""

    def __init__(self) -> None:
        self._data = bytearray(ENCAPSULATION)

    def __len__(self) -> int:
        return len(self._data)

    def number(self, kind: str, value: int) -> None:
        """Append an integer or a bool; kind: its character in the module struct."""
        self._align(struct.calcsize(f'<{kind}'))
        self._data += struct.pack(f'<{kind}', value)

    def text(self, value: str) -> None:
        """Append a string."""
        encoded = value.encode()
        self.number('I', len(encoded) + 1)
        self._data += encoded + b'\0'

    def texts(self, values: Sequence[str]) -> None:
        """Append a sequence of strings."""
        self.number('I', len(values))
        for value in values:
            self.text(value)

    def doubles(self, values: NDArray[np.float64] | None) -> None:
        """Append a sequence of float64; None is an empty one."""
        if values is None:
            self.number('I', 0)
            return
        self.number('I', len(values))
        self._align(8)
        self._data += values.astype('<f8', copy=False).tobytes()

    def take(self) -> bytearray:
        """Return what was written; the writer is used up."""
        return self._data

    def _align(self, size: int) -> None:
        self._data += bytes(-(len(self._data) - len(ENCAPSULATION)) % size)
