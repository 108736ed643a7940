# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Writing the audit log, off the thread that controls the robot.

The control thread hands over references and goes on: a step costs it some microseconds. A
thread of the log encodes, chains and writes them. The queue between them is bounded; what finds
no room is lost, and the log says at that place how much. So it does for what the disk refused.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from vla_deploy.core.audit_config import AuditConfig
from vla_deploy.core.audit_file import AuditError, file_name
from vla_deploy.core.chain import NO_HEAD, seal
from vla_deploy.core.guard_io import Inputs, Outputs
from vla_deploy.core.journal import step_record

MAX_BATCH = 64
LOOK_S = 0.02
"""How long a record may wait before the thread of the log looks for it."""
QUEUE_FULL = 'the queue was full'
_SYNC_PERIOD_NS = 1_000_000_000


@dataclass(frozen=True)
class AuditStatus:
    """records: written so far, of which the last has the hash `head`; lost: not written."""

    records: int
    head: str
    lost: int


@dataclass(frozen=True)
class _Step:
    now_ros_ns: int
    now_steady_ns: int
    inputs: Inputs
    outputs: Outputs


@dataclass(frozen=True)
class _Lost:
    count: int
    reason: str


@dataclass(frozen=True)
class _Event:
    record: Mapping[str, Any]


class AuditLog:
    """One log, from its genesis to its end. `step`, `event` and `status` never wait for a disk."""

    def __init__(self, folder: Path, config: AuditConfig, genesis: Mapping[str, Any]) -> None:
        """Make the folder, which must not exist, and write the genesis; raises AuditError."""
        self.folder = folder
        self.syncs = 0
        self._config = config
        self._queue: SimpleQueue[_Step | _Lost | _Event | None] = SimpleQueue()
        self._closing = threading.Event()
        self._dropped = 0  # by the control thread, not yet said in the queue
        self._dropped_total = 0
        self._lost_told = 0
        self._file, self._descriptor = 0, -1
        self._size = 0
        self._synced_ns = 0
        self._unwritten, self._reason = 0, ''
        self._unwritten_total = 0
        self._written = (0, NO_HEAD)
        try:
            folder.mkdir(parents=True)
            self._descriptor = self._create(0)
            self._append([genesis])
            self._sync(self._descriptor)
        except OSError as error:
            self._release()
            raise AuditError(f'audit log {folder}: {error.strerror}') from None
        self._thread = threading.Thread(target=self._write_all, name='audit', daemon=True)

    # -- the control thread

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def step(self, now_ros_ns: int, now_steady_ns: int, inputs: Inputs, outputs: Outputs) -> None:
        """Record a step of the guard; nothing that is handed over may be changed afterwards."""
        self._offer(_Step(now_ros_ns, now_steady_ns, inputs, outputs))

    def event(self, name: str, now_ros_ns: int, **details: Any) -> None:
        """Record something that is not a step, as an activation."""
        self._offer(_Event({'kind': 'event', 'name': name, 'ros_ns': now_ros_ns, **details}))

    def status(self) -> AuditStatus:
        """Return how far the log has come."""
        records, head = self._written
        return AuditStatus(records, head, self._dropped_total + self._unwritten_total)

    @property
    def thread_id(self) -> int | None:
        """Native id of the thread that writes; None before it has begun."""
        return self._thread.native_id

    def loss(self) -> str:
        """Return what went wrong since the last call, or still does, as one line; else empty."""
        lost = self._dropped_total + self._unwritten_total
        problem = self._reason or (QUEUE_FULL if lost > self._lost_told else '')
        if not problem and not self._thread.is_alive():
            problem = 'its thread has ended'
        self._lost_told = lost
        return f'audit log {self.folder}: {problem}; {lost} records lost' if problem else ''

    def close(self, timeout_s: float) -> bool:
        """Write what waits and the end record; False if that was not done in time."""
        if self._thread.ident is None:
            self._thread.start()
        self._tell_dropped()
        self._queue.put(None)
        self._closing.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _offer(self, item: _Step | _Event) -> None:
        if self._queue.qsize() >= self._config.log_queue_length:
            self._dropped += 1
            self._dropped_total += 1
            return
        self._tell_dropped()
        self._queue.put(item)

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._queue.put(_Lost(self._dropped, QUEUE_FULL))
            self._dropped = 0

    # -- the thread of the log

    def _write_all(self) -> None:
        closing = False
        while not closing:
            # Looking every now and then, not waiting: to wake a thread costs the control thread
            # more than all the rest of handing over a step.
            self._closing.wait(LOOK_S)
            while self._queue.qsize() and not closing:
                batch = [self._queue.get() for _ in range(min(self._queue.qsize(), MAX_BATCH))]
                closing = batch[-1] is None
                self._write([item for item in batch if item is not None], closing)
        self._release()

    def _write(self, items: list[_Step | _Lost | _Event], closing: bool) -> None:
        """Write a batch whole or not at all; what is not written is counted."""
        try:
            if self._size >= self._config.log_rotate_bytes:
                self._rotate()
            self._append(self._records(items, closing))
        except OSError as error:
            told = sum(item.count - 1 for item in items if isinstance(item, _Lost))
            self._unwritten += len(items) + told
            self._unwritten_total += sum(not isinstance(item, _Lost) for item in items)
            self._reason = error.strerror or str(error)
            return
        self._unwritten, self._reason = 0, ''
        try:
            self._sync_if_due(items, closing)
        except OSError as error:
            self._reason = f'fsync: {error.strerror}'

    def _records(
        self, items: list[_Step | _Lost | _Event], closing: bool
    ) -> list[Mapping[str, Any]]:
        records: list[Mapping[str, Any]] = []
        if self._size == 0:
            records.append({'kind': 'continued', 'from': file_name(self._file - 1)})
        if self._unwritten:
            records.append(_lost_record(_Lost(self._unwritten, self._reason)))
        records += [_record(item) for item in items]
        return [*records, {'kind': 'end'}] if closing else records

    def _append(self, records: list[Mapping[str, Any]]) -> None:
        number, head = self._written
        lines = []
        for record in records:
            line, head = seal({**record, 'n': number}, head)
            lines.append(line)
            number += 1
        data = memoryview(b''.join(lines))
        begin = self._size
        try:
            while data:
                written = os.write(self._descriptor, data)
                self._size += written
                data = data[written:]
        except OSError:
            os.ftruncate(self._descriptor, begin)  # no half a record before the next one
            self._size = begin
            raise
        self._written = (number, head)

    def _rotate(self) -> None:
        following = self._create(self._file + 1)
        try:
            self._append([{'kind': 'rotated', 'to': file_name(self._file + 1)}])
        except OSError:
            os.close(following)
            (self.folder / file_name(self._file + 1)).unlink()
            raise
        full = self._descriptor
        self._descriptor, self._size, self._file = following, 0, self._file + 1
        try:
            if self._config.log_fsync != 'never':
                self._sync(full)
        finally:
            os.close(full)

    def _create(self, index: int) -> int:
        path = self.folder / file_name(index)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)

    def _sync_if_due(self, items: list[_Step | _Lost | _Event], closing: bool) -> None:
        if self._config.log_fsync == 'never':
            return
        newest_ns = max((i.now_steady_ns for i in items if isinstance(i, _Step)), default=0)
        due = newest_ns - self._synced_ns >= _SYNC_PERIOD_NS
        if closing or due or self._config.log_fsync == 'every_write':
            self._sync(self._descriptor)
            self._synced_ns = max(newest_ns, self._synced_ns)

    def _sync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        self.syncs += 1

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _record(item: _Step | _Lost | _Event) -> Mapping[str, Any]:
    if isinstance(item, _Step):
        return step_record(item.now_ros_ns, item.now_steady_ns, item.inputs, item.outputs)
    return item.record if isinstance(item, _Event) else _lost_record(item)


def _lost_record(lost: _Lost) -> Mapping[str, Any]:
    return {'kind': 'lost', 'count': lost.count, 'reason': lost.reason}
