# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Takes messages without ever waiting for the disk, and writes them in a thread of its own.

What comes faster than the disk is dropped, counted for each topic, and said: nothing is left out
in silence.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vla_deploy.trace.bag_writer import BagWriter, Topic

# Waits that end early when something is put into the queue; a full one is written at once.
_POLL_S = 0.02


@dataclass
class Counts:
    """What happened to the messages of each topic."""

    recorded: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)  # the queue was full
    lost: dict[str, int] = field(default_factory=dict)  # on the way here, as the transport says


@dataclass(frozen=True)
class _Entry:
    topic: Topic | None
    log_ns: int
    publish_ns: int
    data: bytes
    change: Callable[[bytes], bytes] | None = None
    write: Callable[[BagWriter], None] | None = None


class Recorder:
    """A bounded queue before a bag. `offer` may be called by several threads."""

    def __init__(
        self,
        writer: BagWriter,
        queue_bytes: int,
        flush_period_s: float,
        watch: Callable[[Topic, int, bytes], None] = lambda *_: None,
        closing: Callable[[], Mapping[str, Mapping[str, str]]] = dict,
    ) -> None:
        """Begin to write. `watch` sees each message that was written, in the writing thread;
        `closing` gives the records of texts that end the bag."""
        self._writer = writer
        self._queue_bytes, self._flush_period_s = queue_bytes, flush_period_s
        self._watch, self._closing = watch, closing
        self._queue: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._channels: dict[str, int] = {}
        self.counts = Counts()
        self.failure = ''  # why nothing is written any more, as one line
        self._thread = threading.Thread(target=self._run, name='bag_writer')
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the disk."""
        return self._waiting_bytes

    @property
    def bytes_written(self) -> int:
        """Bytes in the bag's file."""
        return self._writer.bytes_written

    def offer(
        self,
        topic: Topic,
        log_ns: int,
        publish_ns: int,
        data: bytes,
        change: Callable[[bytes], bytes] | None = None,
        keep: bool = False,
    ) -> bool:
        """Take a message, or drop it where the queue is full; return whether it was taken.

        `change` makes what is written of it, in the writing thread. `keep`: never drop this one,
        for the few that say what was dropped.
        """
        size = len(data)
        with self._lock:
            full = self._waiting_bytes + size > self._queue_bytes and not keep
            if full or self.failure or self._ending.is_set():
                self.counts.dropped[topic.name] = self.counts.dropped.get(topic.name, 0) + 1
                return False
            self._queue.append(_Entry(topic, log_ns, publish_ns, data, change))
            self._waiting_bytes += size
        return True

    def add_lost(self, topic: str, count: int) -> None:
        """Count messages that the transport says never came."""
        with self._lock:
            self.counts.lost[topic] = self.counts.lost.get(topic, 0) + count

    def add(self, write: Callable[[BagWriter], None]) -> None:
        """Have the writing thread put something else into the bag, as an attachment."""
        with self._lock:
            self._queue.append(_Entry(None, 0, 0, b'', None, write))

    def problem(self) -> str:
        """Return what is wrong, as one line: nothing is written, or something is missing."""
        if self.failure:
            return self.failure
        with self._lock:
            missing = {
                'dropped, the queue was full': dict(self.counts.dropped),
                'lost on the way here': dict(self.counts.lost),
            }
        return '; '.join(
            f'{sum(by_topic.values())} messages {how}: {", ".join(sorted(by_topic))}'
            for how, by_topic in missing.items()
            if by_topic
        )

    def close(self) -> None:
        """Write what waits and end the bag."""
        self._ending.set()
        self._thread.join()

    # -- in the writing thread ------------------------------------------------------------------

    def _run(self) -> None:
        ended = False
        try:
            flushed_s = time.monotonic()
            while not self._ending.is_set():
                if not self._write_waiting():
                    self._ending.wait(_POLL_S)
                now_s = time.monotonic()
                if now_s - flushed_s >= self._flush_period_s:
                    self._writer.flush()
                    flushed_s = now_s
            self._write_waiting()
            for name, values in self._closing().items():
                self._writer.add_metadata(name, values)
            self._writer.close()
            ended = True
        except OSError as error:
            self._fail(f'{self._writer.file}: {error.strerror}')
        finally:
            if not ended and not self.failure:  # a fault of the program: its trace is on stderr
                self._fail(f'{self._writer.file}: the thread that writes it has ended')

    def _write_waiting(self) -> bool:
        wrote = False
        while True:
            with self._lock:
                if not self._queue:
                    return wrote
                entry = self._queue.popleft()
            self._write(entry)
            wrote = True
            with self._lock:
                self._waiting_bytes -= len(entry.data)

    def _write(self, entry: _Entry) -> None:
        if entry.write is not None:
            entry.write(self._writer)
        if entry.topic is None:
            return
        name = entry.topic.name
        if name not in self._channels:
            self._channels[name] = self._writer.add_topic(entry.topic)
        data = entry.change(entry.data) if entry.change is not None else entry.data
        self.counts.recorded[name] = self.counts.recorded.get(name, 0) + 1
        self._writer.write(self._channels[name], entry.log_ns, entry.publish_ns, data)
        self._watch(entry.topic, entry.log_ns, data)

    def _fail(self, reason: str) -> None:
        """Stop writing for good; what is in the file stays readable, all else is counted."""
        unwritten = Counter(self._writer.abandon())
        with self._lock:
            self.failure = reason
            for name, count in unwritten.items():
                self.counts.recorded[name] -= count
            unwritten.update(e.topic.name for e in self._queue if e.topic is not None)
            for name, count in unwritten.items():
                self.counts.dropped[name] = self.counts.dropped.get(name, 0) + count
            self._queue.clear()
            self._waiting_bytes = 0
