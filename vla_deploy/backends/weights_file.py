# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A weights file, read to a device in long spans.

Each call into torch gives the interpreter away and has to wait for it, beside threads that make
modules and graphs: a span holds many parameters, and takes a handful of calls.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vla_deploy.pipeline.backend import PolicyError

SPAN_BYTES = 8 << 20
MOST_GAP_BYTES = 64 << 10  # between parameters of one span, which are read and not used
BYTES_PER_ELEMENT = 4  # the file is float32


class Place(NamedTuple):
    """Where a parameter goes: `target` [rows,columns], as the file has them from a byte `offset`
    on. `factor` broadcasts to them; they are multiplied by it first, in float32."""

    target: Tensor
    name: str
    offset: int
    factor: Tensor | None = None

    def rows(self, first: int, last: int) -> Place:
        """Return some of the rows."""
        if (first, last) == (0, len(self.target)):
            return self
        factor, row_bytes = self.factor, self.target.shape[1] * BYTES_PER_ELEMENT
        if factor is not None and factor.dim() == 2:
            factor = factor[first:last]
        return Place(
            self.target[first:last], self.name, self.offset + first * row_bytes, factor
        )

    @property
    def end(self) -> int:
        """Return the offset behind its last byte."""
        return self.offset + self.target.numel() * BYTES_PER_ELEMENT


@dataclasses.dataclass
class Span:
    """A piece of the file, and what in it goes where."""

    places: list[Place]

    @property
    def offset(self) -> int:
        """Return where it begins."""
        return self.places[0].offset

    def room(self, offset: int) -> int:
        """Return how many bytes from an offset on there is room for."""
        if not 0 <= offset - self.places[-1].end <= MOST_GAP_BYTES:
            return 0
        return self.offset + SPAN_BYTES - offset


def most_columns() -> int:
    """Return the length of the longest row that can be read."""
    return SPAN_BYTES // BYTES_PER_ELEMENT


def spans_of(places: Iterable[Place]) -> list[Span]:
    """Return spans that hold all places, in the order of the file. No row may be longer than
    `most_columns`."""
    spans: list[Span] = []
    for place in sorted(places, key=lambda own: own.offset):
        (rows, columns), first = place.target.shape, 0
        row_bytes = columns * BYTES_PER_ELEMENT
        while first < rows:
            room = spans[-1].room(place.offset + first * row_bytes) if spans else 0
            taken = min(rows - first, room // row_bytes)
            if taken > 0:
                spans[-1].places.append(place.rows(first, first + taken))
            else:
                taken = min(rows - first, SPAN_BYTES // row_bytes)
                spans.append(Span([place.rows(first, first + taken)]))
            first += taken
    return spans


class _Buffer:
    """A piece of memory that a span is read into; pinned where it goes to a GPU on a stream."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        count, pinned = SPAN_BYTES // BYTES_PER_ELEMENT, stream is not None
        self.host = torch.empty(count, dtype=torch.float32, pin_memory=pinned)
        self.bytes = memoryview(self.host.numpy()).cast('B')
        self.sent = torch.cuda.Event() if pinned else None


class _Reader(threading.local):
    """What a thread that reads has of its own: for a GPU a stream, two buffers, of which one is
    filled while the other one goes there, and where they go."""

    def __init__(self) -> None:
        self._buffers: list[_Buffer] = []

    def begin(self, device: torch.device) -> None:
        """Make all this, the first time. In what a thread does and not before: the executor would
        hide why the thread cannot begin."""
        if self._buffers:
            return
        self.stream = None
        if device.type == 'cuda':
            self.stream = torch.cuda.Stream(device)
            torch.cuda.set_stream(self.stream)
        self._buffers = [_Buffer(self.stream) for _ in range(1 if self.stream is None else 2)]
        host = self._buffers[0].host
        self._there = host if self.stream is None else torch.empty_like(host, device=device)

    def next(self) -> _Buffer:
        """Return the buffer whose turn it is, once it is free."""
        self._buffers.reverse()
        buffer = self._buffers[0]
        if buffer.sent is not None:
            buffer.sent.synchronize()
        return buffer

    def send(self, buffer: _Buffer, count: int) -> Tensor:
        """Return the first `count` elements on the device, which the caller may change; they are
        there for what follows on the stream, until anything is sent again."""
        there = self._there[:count]
        if buffer.sent is not None:
            there.copy_(buffer.host[:count], non_blocking=True)
            buffer.sent.record(self.stream)
        return there


class WeightsFile:
    """A file that is open, until `close`. Any thread may read it."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Raises OSError where it cannot be opened."""
        self._path, self._device = path, device
        self._file = os.open(path, os.O_RDONLY)
        self._reader = _Reader()

    def close(self) -> None:
        """Close it, when no thread reads any more."""
        os.close(self._file)

    def begin(self, after: torch.cuda.Event | None) -> None:
        """Let this thread read, with what it has for that; on a GPU, behind an event."""
        self._reader.begin(self._device)
        if after is not None:
            after.wait()

    def end(self) -> None:
        """Return when all that this thread has read is on the device: other threads may capture,
        when nobody may await the whole device."""
        if self._reader.stream is not None:
            self._reader.stream.synchronize()

    def copy(self, span: Span) -> None:
        """Copy what a span holds to its places, in a thread that has begun."""
        buffer, begin = self._reader.next(), span.offset
        length = span.places[-1].end - begin
        self.pull(buffer.bytes[:length], begin, span.places[0].name)
        there = self._reader.send(buffer, length // BYTES_PER_ELEMENT)
        targets, values, factors, multiplied = [], [], [], []
        for target, _, offset, factor in span.places:
            first = (offset - begin) // BYTES_PER_ELEMENT
            value = there[first : first + target.numel()].view(target.shape)
            targets.append(target)
            values.append(value)
            if factor is not None:
                multiplied.append(value)
                factors.append(factor)
        if multiplied:
            torch._foreach_mul_(multiplied, factors)
        torch._foreach_copy_(targets, values)

    def pull(self, target: memoryview, offset: int, name: str) -> None:
        """Read bytes from an offset on, until `target` is full. Raises PolicyError where the file
        ends before."""
        done = 0
        while done < len(target):
            read = os.preadv(self._file, [target[done:]], offset + done)
            if read == 0:
                raise PolicyError(f'{self._path}: ends before {name}; export again')
            done += read
