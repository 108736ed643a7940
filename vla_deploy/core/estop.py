# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which sources ask for an emergency stop: each topic is one, and no other one can cancel it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vla_deploy.core.trajectory import NS_TO_S


@dataclass
class _Source:
    stops: bool = False
    heard: bool = False
    heard_ns: int = 0
    publishers: int = 0


class EstopSources:
    """The levels of every topic. Times are of the steady clock, in ns.

    A message does not say who sent it. So where a topic has several publishers, false does not
    clear what may have been another one's true: it stays until one publisher is left and says
    false. A required topic stops the robot when its publisher is gone or silent; before it was
    ever heard, it only keeps the guard from arming.
    """

    def __init__(self, topics: Sequence[str], required: bool, timeout_s: float) -> None:
        """timeout_s: silence of a required topic that stops the robot; 0: any silence is fine."""
        self._sources = {topic: _Source() for topic in topics}
        self._required, self._timeout_s = required, timeout_s

    def hear(self, topic: str, stops: bool, publishers: int, now_ns: int) -> None:
        """Take a message of a topic that has so many publishers now."""
        source = self._sources[topic]
        source.heard, source.heard_ns = True, now_ns
        source.publishers = max(publishers, 1)  # the graph may not know it yet
        if stops or publishers <= 1:
            source.stops = stops

    def count(self, topic: str, publishers: int) -> None:
        """Take the number of publishers that a topic has now."""
        self._sources[topic].publishers = publishers

    def reason(self, now_ns: int) -> str:
        """Return why the robot must stop, as one line; empty if no source asks for it."""
        for topic, source in self._sources.items():
            if source.stops:
                others = ''
                if source.publishers > 1:
                    others = (f'; it has {source.publishers} publishers, so that false clears '
                              'nothing: give each its own topic in estop_topics')
                return f'emergency stop: {topic!r} is true{others}'
            if not self._required or not source.heard:
                continue
            if source.publishers < 1:
                return f'emergency stop: the publisher of {topic!r} is gone'
            silent_s = (now_ns - source.heard_ns) * NS_TO_S
            if 0.0 < self._timeout_s < silent_s:
                return f'emergency stop: {topic!r} was silent for {silent_s:.3f} s'
        return ''

    def missing(self) -> str:
        """Return which required topic was never heard, as one line; empty if none."""
        for topic, source in self._sources.items():
            if self._required and not source.heard:
                return f'nothing was heard on {topic!r}, an emergency stop that is required'
        return ''
