# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which chunk may come next, and which plan runs: one running plan, one pending."""

from __future__ import annotations

from collections import deque

from vla_deploy.core.plan import Plan

CLOSED_SESSIONS_KEPT = 256


class SessionBook:
    """Sessions seen so far. Sequence numbers rise within one; a session that was left is closed."""

    def __init__(self) -> None:
        self.session_id: str | None = None
        self.seq = -1
        self._closed: deque[str] = deque(maxlen=CLOSED_SESSIONS_KEPT)

    def refusal(self, session_id: str, seq: int) -> tuple[str, str]:
        """Rule broken and a sentence, or two empty strings if this chunk may come next."""
        if session_id == self.session_id:
            if seq <= self.seq:
                return 'seq', f'chunk {seq} came after chunk {self.seq} of its session'
        elif session_id in self._closed:
            successor = 'has ended' if self.session_id is None else (
                f'was replaced by {self.session_id!r}')
            return 'session', f'session {session_id!r} {successor}'
        return '', ''

    def accept(self, session_id: str, seq: int) -> None:
        """Remember an accepted chunk; a new session closes the one before it."""
        if session_id != self.session_id and self.session_id is not None:
            self._closed.append(self.session_id)
        self.session_id, self.seq = session_id, seq

    def close(self, session_id: str) -> None:
        """Let no chunk of a session come any more."""
        self._closed.append(session_id)
        if session_id == self.session_id:
            self.session_id, self.seq = None, -1


class Schedule:
    """The running plan, the pending one, and how many samples were really consumed."""

    def __init__(self) -> None:
        self.running: Plan | None = None
        self.pending: Plan | None = None
        self.next_index = 0
        self.consumed_total = 0

    @property
    def has_plan(self) -> bool:
        """Whether a plan runs or waits."""
        return self.running is not None or self.pending is not None

    def offer(self, plan: Plan) -> None:
        """Let `plan` replace the pending plan; the running one goes on until it starts."""
        self.pending = plan

    def activate(self, splice_ns: int, now_ns: int, ahead_ns: int) -> bool:
        """Start the pending plan once its first sample is at most ahead_ns after splice_ns.

        Samples that lie in the past by now are skipped, not consumed.
        """
        if self.pending is None or self.pending.knots.start_ns > splice_ns + ahead_ns:
            return False
        self.running, self.pending = self.pending, None
        self.next_index = self.running.knots.segment_at(now_ns) + 1
        return True

    def advance(self, now_ns: int) -> bool:
        """Count the samples consumed up to now; False once the running plan has ended."""
        if self.running is None:
            return True
        index = self.running.knots.segment_at(now_ns) + 1
        self.consumed_total += max(0, index - self.next_index)
        self.next_index = max(index, self.next_index)
        return now_ns < self.running.knots.end_ns

    def drop(self) -> None:
        """Forget both plans; the count of samples stays."""
        self.running = self.pending = None
        self.next_index = 0
