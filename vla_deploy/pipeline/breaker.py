# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A circuit breaker: after several faults in a row the policy is left alone for a while.

Only faults of the server itself count. What a client sent and could not be used says nothing about
whether the next one can be served.
"""

from __future__ import annotations


class CircuitBreaker:
    """closed: computes. open: refuses until its time is up. half_open: lets one attempt through;
    if that succeeds the breaker closes, else it opens again. Has no clock: steady time in s."""

    def __init__(self, failures: int, open_s: float) -> None:
        """Open after so many faults in a row, for `open_s`."""
        self._allowed, self._open_s = failures, open_s
        self._in_a_row = 0
        self._opened_s: float | None = None
        self._trying = False
        self.last_fault = ''

    def state(self, now_s: float) -> str:
        """Return closed, open or half_open."""
        if self._opened_s is None:
            return 'closed'
        return 'open' if self.retry_after_s(now_s) > 0.0 else 'half_open'

    def retry_after_s(self, now_s: float) -> float:
        """Return how long an attempt is refused yet, in seconds; 0 where one is let through."""
        if self._opened_s is None:
            return 0.0
        return max(0.0, self._opened_s + self._open_s - now_s)

    def allows(self, now_s: float) -> bool:
        """Tell whether an attempt may be made now; in half_open one at a time."""
        return self.retry_after_s(now_s) == 0.0 and not self._trying

    def begin(self, now_s: float) -> None:
        """Note that an attempt is being made."""
        self._trying = self.state(now_s) == 'half_open'

    def abandoned(self) -> None:
        """Note that the attempt said nothing about the server, as with a client's bad input."""
        self._trying = False

    def succeeded(self) -> None:
        """Close."""
        self._in_a_row, self._opened_s, self._trying = 0, None, False

    def failed(self, now_s: float, fault: str) -> None:
        """Count a fault; open after enough of them, and at once after a failed attempt."""
        self._in_a_row += 1
        self.last_fault = fault
        if self._trying or self._in_a_row >= self._allowed:
            self._opened_s = now_s
        self._trying = False

    def refusal(self, now_s: float) -> str:
        """Return what is told to whom is refused."""
        return (
            f'policy left alone: inference failed {self._in_a_row} times in a row, the last time '
            f'with "{self.last_fault}"; retry after {self.retry_after_s(now_s):.1f} s'
        )
