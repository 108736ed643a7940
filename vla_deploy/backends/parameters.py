# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Where the torch backend gets a policy's parameters: a bundle's weights file, or a torch module.

A bundle's are read in chunks through two pinned buffers, so that the process never holds more
than these of the file, and each byte goes to the device once. A chunk is read in stripes by several
threads, which together read faster from memory and from disks than one.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

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
CHUNK_BYTES = 8 << 20
STRIPE_BYTES, READERS = 2 << 20, 4
BYTES_PER_ELEMENT = 4  # the weights file is float32


class ParameterSource(Protocol):
    """Gives parameters by the names that they have in the checkpoint, without `model.`."""

    device: torch.device

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter."""

    def fill(self, target: Tensor, name: str, factor: Tensor | None = None) -> None:
        """Copy a parameter into `target` of its shape, converted to the target's dtype.

        `factor` float32 [last axis] multiplies it first, in float32.
        """

    def read(self, name: str) -> Tensor:
        """Return a parameter as float32 on the device."""


class ModuleParameters:
    """The parameters of a torch module; `device` is where targets lie."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._parameters = dict(module.named_parameters())
        self.device = device

    def shape(self, name: str) -> tuple[int, ...]:
        """See ParameterSource."""
        return tuple(self._parameters[name].shape)

    def fill(self, target: Tensor, name: str, factor: Tensor | None = None) -> None:
        """See ParameterSource."""
        value = self.read(name)
        target.copy_(value if factor is None else value * factor)

    def read(self, name: str) -> Tensor:
        """See ParameterSource."""
        return self._parameters[name].detach().to(self.device, torch.float32)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """Where a parameter of `shape` lies; `transposed`: stored as its transpose."""

    shape: tuple[int, ...]
    offset: int
    transposed: bool


class FileParameters:
    """The parameters in a weights file, by a table of where each lies."""

    def __init__(self, path: Path, tensors: Mapping[str, Any], device: torch.device) -> None:
        self.device = device
        self._path = path
        self._entries = {
            name: strict.from_mapping(_Entry, entry, name) for name, entry in tensors.items()
        }
        self._file = os.open(self._path, os.O_RDONLY)
        pinned = device.type == 'cuda'
        self._buffers = [
            torch.empty(CHUNK_BYTES // BYTES_PER_ELEMENT, dtype=torch.float32, pin_memory=pinned)
            for _ in range(2)
        ]
        self._readers = ThreadPoolExecutor(READERS)
        self._free: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def close(self) -> None:
        """Give back the file, the readers and the buffers."""
        self._readers.shutdown()
        os.close(self._file)
        self._buffers.clear()

    def shape(self, name: str) -> tuple[int, ...]:
        """See ParameterSource."""
        return self._entry(name).shape

    def read(self, name: str) -> Tensor:
        """See ParameterSource."""
        value = torch.empty(self._entry(name).shape, dtype=torch.float32, device=self.device)
        self.fill(value, name)
        return value

    def fill(self, target: Tensor, name: str, factor: Tensor | None = None) -> None:
        """See ParameterSource. Raises PolicyError where the file is shorter than its table."""
        entry = self._entry(name)
        if tuple(target.shape) != entry.shape:
            raise PolicyError(
                f'{self._path}: {name} is {list(entry.shape)}, not {list(target.shape)}'
            )
        matrix = target.reshape(1, -1) if target.dim() == 1 else target.flatten(1)
        stored = matrix.T if entry.transposed else matrix
        rows, columns = stored.shape
        step = max(1, CHUNK_BYTES // (columns * BYTES_PER_ELEMENT))
        for begin in range(0, rows, step):
            end = min(begin + step, rows)
            offset = entry.offset + begin * columns * BYTES_PER_ELEMENT
            chunk = self._pull(offset, (end - begin) * columns, name).view(end - begin, columns)
            if factor is not None:
                chunk = chunk * (factor[begin:end, None] if entry.transposed else factor)
            stored[begin:end].copy_(chunk)

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise PolicyError(f'{self._path}: holds no {name}; export the checkpoint again')
        return self._entries[name]

    def _pull(self, offset: int, count: int, name: str) -> Tensor:
        """Read `count` elements at a byte offset; they are on the device when this returns."""
        if count * BYTES_PER_ELEMENT > CHUNK_BYTES:
            raise PolicyError(f'{self._path}: a row of {name} is longer than {CHUNK_BYTES} bytes')
        self._turn = 1 - self._turn
        event = self._free[self._turn]
        if event is not None:
            event.synchronize()  # the copy that last used this buffer
        buffer = self._buffers[self._turn][:count]
        view = memoryview(buffer.numpy()).cast('B')

        def read(at: int) -> bool:
            return self._read_stripe(view[at : at + STRIPE_BYTES], offset + at)

        several = len(view) > STRIPE_BYTES
        stripes = range(0, len(view), STRIPE_BYTES)
        if not all(self._readers.map(read, stripes) if several else map(read, stripes)):
            raise PolicyError(f'{self._path}: ends before {name}; export again')
        if self.device.type != 'cuda':
            return buffer.to(self.device)
        chunk = buffer.to(self.device, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._free[self._turn] = event
        return chunk

    def _read_stripe(self, view: memoryview, offset: int) -> bool:
        """Fill a stripe of a buffer; False where the file ends before."""
        done = 0
        while done < len(view):
            read = os.preadv(self._file, [view[done:]], offset + done)
            if read == 0:
                return False
            done += read
        return True


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
