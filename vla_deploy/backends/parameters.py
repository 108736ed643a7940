# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Where the torch backend gets a policy's parameters: a bundle's weights file, or a torch module.

A bundle's are read by several threads, in chunks through two pinned buffers of each, so that the
process never holds more than these of the file, and each byte goes to the device once. Who asks
for a parameter gets its place at once: what needs no values can be done beside reading. Reading
begins when all has been asked for: beside it, each of the many short calls into torch that asking
takes would have to wait for the interpreter's lock.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from vla_deploy.backends.quantised import Matrix, Quantised
from vla_deploy.core import strict
from vla_deploy.files import FileError, read_bytes
from vla_deploy.models.pi import PiConfig
from vla_deploy.models.smolvla import SmolVLAConfig
from vla_deploy.pipeline.backend import PolicyError
from vla_deploy.pipeline.bundle import PARAMETERS, WEIGHTS, Bundle

CONFIGS: dict[str, type[SmolVLAConfig] | type[PiConfig]] = {
    'smolvla': SmolVLAConfig,
    'pi0': PiConfig,
    'pi05': PiConfig,
}
SCHEMA_VERSION = 1
MAX_TABLE_BYTES = 16 << 20
READERS = 2
CHUNK_BYTES = 2 << 20
PIECE_BYTES = 16 << 20  # of parameters, which one reader takes
BYTES_PER_ELEMENT = 4  # the weights file is float32


class ParameterSource(Protocol):
    """Gives parameters by the names that they have in the checkpoint, without `model.`."""

    device: torch.device

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter."""

    def fill(self, target: Matrix, name: str, factor: Tensor | None = None) -> None:
        """Copy a parameter into `target` of its shape, converted to what the target is, before
        `finish` returns.

        `factor` float32 [last axis] multiplies it first, in float32.
        """

    def read(self, name: str) -> Tensor:
        """Return a parameter as float32 on the device; its values are there."""

    def finish(self) -> None:
        """Return when all that was asked for is on the device."""


class ModuleParameters:
    """The parameters of a torch module; `device` is where targets lie."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._parameters = dict(module.named_parameters())
        self.device = device

    def shape(self, name: str) -> tuple[int, ...]:
        """See ParameterSource."""
        return tuple(self._parameters[name].shape)

    def fill(self, target: Matrix, name: str, factor: Tensor | None = None) -> None:
        """See ParameterSource."""
        value = self.read(name)
        if factor is not None:
            value = value * factor
        if isinstance(target, Quantised):
            target.set(value)
        else:
            target.copy_(value)

    def read(self, name: str) -> Tensor:
        """See ParameterSource."""
        return self._parameters[name].detach().to(self.device, torch.float32)

    def finish(self) -> None:
        """See ParameterSource."""


class _Piece(NamedTuple):
    """Rows `begin` to `end` of a parameter whose place is `stored`, as the file has them."""

    stored: Tensor
    name: str
    begin: int
    end: int
    factor: Tensor | None


class _Whole(NamedTuple):
    """A parameter whose place is in 8 bits."""

    target: Quantised
    name: str
    factor: Tensor | None


@dataclasses.dataclass(frozen=True)
class _Entry:
    """Where a parameter of `shape` lies; `transposed`: stored as its transpose."""

    shape: tuple[int, ...]
    offset: int
    transposed: bool


class _Buffers(threading.local):
    """Two buffers of float32 for each thread, in turn. Pinned ones go to the device on the thread's
    current stream, while the other one is filled."""

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._buffers: list[Tensor] = []  # of a thread that reads
        self._sent = [torch.cuda.Event(), torch.cuda.Event()] if pinned else []
        self._turn = 0
        self.stream: torch.cuda.Stream | None = None  # of a thread that has one of its own

    def take(self, count: int) -> Tensor:
        """Return `count` elements of the buffer whose turn it is, once they are free."""
        if not self._buffers:
            self._buffers = [
                torch.empty(
                    CHUNK_BYTES // BYTES_PER_ELEMENT, dtype=torch.float32, pin_memory=self._pinned
                )
                for _ in range(2)
            ]
        self._turn = 1 - self._turn
        if self._pinned:
            self._sent[self._turn].synchronize()  # the copy that last used this buffer
        return self._buffers[self._turn][:count]

    def send(self, buffer: Tensor, device: torch.device) -> Tensor:
        """Return what `take` returned, by now filled, as a tensor of its own on the device."""
        if not self._pinned:
            return buffer.clone()
        chunk = buffer.to(device, non_blocking=True)
        self._sent[self._turn].record()
        return chunk

    def drop(self) -> None:
        """Let go of this thread's."""
        self._buffers.clear()


class FileParameters:
    """The parameters in a weights file, by a table of where each lies."""

    def __init__(self, path: Path, tensors: Mapping[str, Any], device: torch.device) -> None:
        self.device = device
        self._path = path
        self._entries = {
            name: strict.from_mapping(_Entry, entry, name) for name, entry in tensors.items()
        }
        self._file = os.open(self._path, os.O_RDONLY)
        self._on_gpu = device.type == 'cuda'
        self._buffers = _Buffers(self._on_gpu)
        self._readers = ThreadPoolExecutor(READERS, 'weights')
        self._asked: list[list[_Piece | _Whole]] = []  # what one reader takes at a time
        self._room = 0  # bytes that the last of these has left
        self._read: list[Future[None]] = []
        self._ender = ThreadPoolExecutor(1, 'weights_end')
        self._end: Future[None] | None = None

    def begin(self) -> None:
        """Begin to read what was asked for since reading began last."""
        allocated = None
        if self._on_gpu:
            allocated = torch.cuda.Event()
            allocated.record()
        # targets and factors are let go of as they have been read
        asked, self._asked, self._room = self._asked, [], 0
        self._read += [self._readers.submit(self._fetch, own, allocated) for own in asked]

    def close(self) -> None:
        """Take no more requests, and begin to read the last, until `finish` returns."""
        if self._end is None:
            self.begin()
            self._buffers.drop()
            self._end = self._ender.submit(self._give_back)
            self._ender.shutdown(wait=False)

    def drop(self) -> None:
        """Take no more requests, and read no further than what readers have begun with."""
        self._asked.clear()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self.close()

    def finish(self) -> None:
        """See ParameterSource. Raises PolicyError where the file is shorter than its table."""
        self.close()
        assert self._end is not None
        self._end.result()

    def _give_back(self) -> None:
        """Give back the readers, their buffers and the file as soon as nothing is left to read."""
        self._readers.shutdown()
        os.close(self._file)
        if self._on_gpu:
            torch._C._host_emptyCache()  # torch keeps pinned memory for the next who asks
        for done in self._read:
            with suppress(CancelledError):  # dropped
                done.result()

    def shape(self, name: str) -> tuple[int, ...]:
        """See ParameterSource."""
        return self._entry(name).shape

    def read(self, name: str) -> Tensor:
        """See ParameterSource."""
        value = torch.empty(self._entry(name).shape, dtype=torch.float32, device=self.device)
        stored = self._stored(value, name)
        self._copy(_Piece(stored, name, 0, len(stored), None))
        return value

    def fill(self, target: Matrix, name: str, factor: Tensor | None = None) -> None:
        """See ParameterSource."""
        if self._end is not None:
            raise RuntimeError(f'{self._path}: {name} was asked for after close')
        if isinstance(target, Quantised):
            self._stored(target.codes, name)  # which refuses another shape
            self._asked.append([_Whole(target, name, factor)])
            self._room = 0
            return
        stored = self._stored(target, name)
        row_bytes = stored.shape[1] * BYTES_PER_ELEMENT
        rows = max(1, PIECE_BYTES // row_bytes)
        for begin in range(0, len(stored), rows):
            end = min(begin + rows, len(stored))
            taken = (end - begin) * row_bytes
            if taken > self._room:
                self._asked.append([])
                self._room = PIECE_BYTES
            self._room -= taken
            self._asked[-1].append(_Piece(stored, name, begin, end, factor))

    def _give_stream(self) -> None:
        """Give a reader a stream of its own, if it has none. In what it does and not before: the
        executor would hide why a thread cannot begin."""
        if self._on_gpu and self._buffers.stream is None:
            stream = torch.cuda.Stream(self.device)
            torch.cuda.set_stream(stream)
            self._buffers.stream = stream

    def _stored(self, target: Tensor, name: str) -> Tensor:
        """Return a view of a parameter's place, [rows,columns] as the file has them."""
        entry = self._entry(name)
        if tuple(target.shape) != entry.shape:
            raise PolicyError(
                f'{self._path}: {name} is {list(entry.shape)}, not {list(target.shape)}'
            )
        matrix = target.reshape(1, -1) if target.dim() == 1 else target.flatten(1)
        if matrix.shape[0 if entry.transposed else 1] * BYTES_PER_ELEMENT > CHUNK_BYTES:
            raise PolicyError(f'{self._path}: a row of {name} is longer than {CHUNK_BYTES} bytes')
        return matrix.T if entry.transposed else matrix

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise PolicyError(f'{self._path}: holds no {name}; export the checkpoint again')
        return self._entries[name]

    @torch.inference_mode()
    def _fetch(self, pieces: Sequence[_Piece | _Whole], allocated: torch.cuda.Event | None) -> None:
        """Copy pieces in this thread, on a stream of its own. With an event, behind it, and to the
        end: other threads may capture, when nobody may await the whole device."""
        self._give_stream()
        if allocated is not None:
            allocated.wait()
        for piece in pieces:
            if isinstance(piece, _Whole):
                self._quantise(piece)
            else:
                self._copy(piece)
        if allocated is not None:
            torch.cuda.current_stream().synchronize()

    def _copy(self, piece: _Piece) -> None:
        """Copy some rows of the file on the current stream."""
        stored, name, begin, end, factor = piece
        entry, columns = self._entries[name], stored.shape[1]
        rows = max(1, CHUNK_BYTES // (columns * BYTES_PER_ELEMENT))
        for first in range(begin, end, rows):
            last = min(first + rows, end)
            offset = entry.offset + first * columns * BYTES_PER_ELEMENT
            chunk = self._pull(offset, (last - first) * columns, name).view(-1, columns)
            if factor is not None:
                chunk *= factor[first:last, None] if entry.transposed else factor
            stored[first:last].copy_(chunk)
            del chunk  # before the next one takes its place

    def _quantise(self, whole: _Whole) -> None:
        """Copy a whole parameter on the current stream and put it in 8 bits: the scale of a row
        takes all of it. No more than one for each reader is held in float32."""
        target, name, factor = whole
        value = torch.empty(target.codes.shape, dtype=torch.float32, device=self.device)
        stored = self._stored(value, name)
        self._copy(_Piece(stored, name, 0, len(stored), factor))
        target.set(value)

    def _pull(self, offset: int, count: int, name: str) -> Tensor:
        """Read `count` elements at a byte offset, to be on the device."""
        buffer = self._buffers.take(count)
        view, done = memoryview(buffer.numpy()).cast('B'), 0
        while done < len(view):
            read = os.preadv(self._file, [view[done:]], offset + done)
            if read == 0:
                raise PolicyError(f'{self._path}: ends before {name}; export again')
            done += read
        return self._buffers.send(buffer, self.device)


class BundleParameters(FileParameters):
    """The parameters of a verified bundle. `config` are the sizes of the model.

    Raises PolicyError for a bundle without the table of parameters, or with one that is not ours.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        table = _read_table(bundle)
        self.config = _config(bundle, table)
        super().__init__(bundle.path / WEIGHTS, table['tensors'], device)


def _read_table(bundle: Bundle) -> dict[str, Any]:
    path = bundle.path / PARAMETERS
    if PARAMETERS not in bundle.receipt['files']:
        raise PolicyError(
            f'{bundle.path}: holds no {PARAMETERS}, which backend torch_cuda needs; export again'
        )
    try:
        table: dict[str, Any] = json.loads(read_bytes(path, MAX_TABLE_BYTES))
    except (FileError, ValueError) as error:
        raise PolicyError(f'{path}: is not readable: {error}') from error
    if table.get('schema_version') != SCHEMA_VERSION or table.get('family') not in CONFIGS:
        raise PolicyError(f'{path}: is of another version or family; export again')
    return table


def _config(bundle: Bundle, table: dict[str, Any]) -> SmolVLAConfig | PiConfig:
    try:
        return strict.from_mapping(CONFIGS[table['family']], table['model'], 'model')
    except strict.SchemaError as error:
        path: Path = bundle.path / PARAMETERS
        raise PolicyError(f'{path}: {error}; export again') from error
