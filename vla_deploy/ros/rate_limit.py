# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Lets through so many equal events a second, and counts the others."""

from __future__ import annotations

from collections.abc import Hashable

# More kinds of events than this at once is a flood in itself: forget, and begin again.
_KINDS_KEPT = 1000


class RateLimit:
    """Time is an argument, in nanoseconds of any one clock."""

    def __init__(self, per_s: float) -> None:
        self._gap_ns = int(1e9 / per_s)
        self._passed: dict[Hashable, tuple[int, int]] = {}  # kind -> (time, suppressed since)

    def passes(self, kind: Hashable, now_ns: int) -> int | None:
        """Return how many equal events were held back since the last; None: hold back this one."""
        known = self._passed.get(kind)
        if known is not None and 0 <= now_ns - known[0] < self._gap_ns:
            self._passed[kind] = (known[0], known[1] + 1)
            return None
        if len(self._passed) >= _KINDS_KEPT:
            self._passed.clear()
        self._passed[kind] = (now_ns, 0)
        return known[1] if known is not None else 0
