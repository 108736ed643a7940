# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Where the torch backend gets a policy's parameters: a bundle's weights file, or a torch module.

A bundle's are read by several threads, in spans through two pinned buffers of each, so that the
process holds little more than these of the file, and each byte goes to the device once. Who asks
for a parameter gets its place at once: what needs no values can be done beside reading. Reading
begins when all has been asked for: beside it, each of the many short calls into torch that asking
takes would have to wait for the interpreter's lock. What is made on the host of a few parameters
is made at once, by the threads that will read.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vla_deploy.backends.quantised import Matrix, Quantised
from vla_deploy.backends.weights_file import Place, Span, WeightsFile, most_columns, spans_of
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
Result = TypeVar('Result')


class Factor(NamedTuple):
    """What each row of a parameter is multiplied by, in float32: a number, added to the values of
    another parameter where one is named."""

    number: float
    name: str | None = None


class ParameterSource(Protocol):
    """Gives parameters by the names that they have in the checkpoint, without `model.`."""

    device: torch.device

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter."""

    def fill(self, target: Matrix, name: str, factor: Factor | None = None) -> None:
        """Copy a parameter into `target` of its shape, times a factor, converted to what the target
        is, before `finish` returns."""

    def later(self, make: Callable[[], Result]) -> Future[Result]:
        """Return what a function will have made on the host, where a little arithmetic takes no
        kernel that would have to be loaded."""

    def made(
        self, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[[], Tensor]
    ) -> Tensor:
        """Return a place on the device for what a function makes on the host, which is there, in
        `dtype`, before `finish` returns."""

    def read(self, name: str) -> Tensor:
        """Return a parameter as float32 on the host; its values are there."""

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

    def fill(self, target: Matrix, name: str, factor: Factor | None = None) -> None:
        """See ParameterSource."""
        value = self._parameters[name].detach().to(self.device, torch.float32)
        if factor is not None:
            value = value * _factor(self, factor, value.shape[-1]).to(self.device)
        if isinstance(target, Quantised):
            target.set(value)
        else:
            target.copy_(value)

    def later(self, make: Callable[[], Result]) -> Future[Result]:
        """See ParameterSource."""
        made: Future[Result] = Future()
        made.set_result(make())
        return made

    def made(
        self, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[[], Tensor]
    ) -> Tensor:
        """See ParameterSource."""
        return make().to(self.device, dtype)

    def read(self, name: str) -> Tensor:
        """See ParameterSource."""
        value = self._parameters[name].detach().float()
        return value if value.is_meta else value.cpu()  # which has no values

    def finish(self) -> None:
        """See ParameterSource."""


def _factor(source: ParameterSource, factor: Factor, columns: int) -> Tensor:
    """Return the values of a factor, float32 [columns], on the host."""
    if factor.name is None:
        return torch.full((columns,), factor.number)
    return source.read(factor.name) + factor.number


class _Value(NamedTuple):
    """What is made on the host, and its place."""

    target: Tensor
    value: Future[Tensor]


class _Whole(NamedTuple):
    """A parameter whose place is in 8 bits, and the place of its factor."""

    target: Quantised
    name: str
    factor: Tensor | None


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
        self._file = WeightsFile(path, device)
        self._on_gpu = device.type == 'cuda'
        self._readers = ThreadPoolExecutor(READERS, 'weights')
        self._asked: list[Place | _Whole | _Value] = []  # since reading began last
        self._factors: dict[tuple[Factor, int], Tensor] = {}  # places of these, and their sizes
        self._left: deque[Span | _Whole | _Value] = deque()  # to be read
        self._read: list[Future[None]] = []
        self._ender = ThreadPoolExecutor(1, 'weights_end')
        self._end: Future[None] | None = None

    def begin(self) -> None:
        """Begin to read what was asked for since reading began last."""
        asked, self._asked = self._asked, []
        factors, self._factors = self._factors, {}
        if not asked:
            return
        allocated = None
        if self._on_gpu:
            allocated = torch.cuda.Event()
            allocated.record()
        self._left.extend(spans_of(own for own in asked if isinstance(own, Place)))
        self._left.extend(own for own in asked if not isinstance(own, Place))
        sent = self._readers.submit(self._send, factors, allocated)
        self._read += [
            sent,
            *(self._readers.submit(self._fetch, factors, allocated, sent) for _ in range(READERS)),
        ]

    def close(self) -> None:
        """Take no more requests, and begin to read the last, until `finish` returns."""
        if self._end is None:
            self.begin()
            self._end = self._ender.submit(self._give_back)
            self._ender.shutdown(wait=False)

    def drop(self) -> None:
        """Take no more requests, and read no further than what readers have begun with."""
        self._asked.clear()
        self._left.clear()
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
        self._file.close()
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
        entry, value = self._entry(name), torch.empty(self._entry(name).shape)
        stored = self._stored(value, name)
        if entry.transposed:
            stored = torch.empty(stored.shape)
        self._file.pull(memoryview(stored.view(-1).numpy()).cast('B'), entry.offset, name)
        if entry.transposed:
            self._stored(value, name).copy_(stored)
        return value

    def later(self, make: Callable[[], Result]) -> Future[Result]:
        """See ParameterSource. A thread that will read makes it."""
        self._require_open('what is made of parameters')
        return self._readers.submit(torch.inference_mode()(make))

    def made(
        self, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[[], Tensor]
    ) -> Tensor:
        """See ParameterSource."""
        target = torch.empty(shape, dtype=dtype, device=self.device)
        self._asked.append(_Value(target, self.later(make)))
        return target

    def fill(self, target: Matrix, name: str, factor: Factor | None = None) -> None:
        """See ParameterSource."""
        self._require_open(name)
        place = None
        if factor is not None:
            columns = self._entry(name).shape[-1]
            if (factor, columns) not in self._factors:
                self._factors[factor, columns] = torch.empty(columns, device=self.device)
            place = self._factors[factor, columns]
        if isinstance(target, Quantised):
            self._stored(target.codes, name)  # which refuses another shape
            self._asked.append(_Whole(target, name, place))
        else:
            self._asked.append(self._place(target, name, place))

    def _require_open(self, name: str) -> None:
        if self._end is not None:
            raise RuntimeError(f'{self._path}: {name} was asked for after close')

    def _place(self, target: Tensor, name: str, factor: Tensor | None) -> Place:
        entry = self._entry(name)
        if factor is not None and entry.transposed:
            factor = factor[:, None]
        return Place(self._stored(target, name), name, entry.offset, factor)

    def _stored(self, target: Tensor, name: str) -> Tensor:
        """Return a view of a parameter's place, [rows,columns] as the file has them."""
        entry = self._entry(name)
        if tuple(target.shape) != entry.shape:
            raise PolicyError(
                f'{self._path}: {name} is {list(entry.shape)}, not {list(target.shape)}'
            )
        matrix = target.reshape(1, -1) if target.dim() == 1 else target.flatten(1)
        columns = matrix.shape[0 if entry.transposed else 1]
        if columns > most_columns():
            raise PolicyError(f'{self._path}: {name} has rows of {columns}, which are too long')
        return matrix.T if entry.transposed else matrix

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise PolicyError(f'{self._path}: holds no {name}; export the checkpoint again')
        return self._entries[name]

    @torch.inference_mode()
    def _send(
        self, factors: Mapping[tuple[Factor, int], Tensor], allocated: torch.cuda.Event | None
    ) -> None:
        """Bring factors to their places; behind an event where there is one."""
        self._file.begin(allocated)
        for (factor, columns), target in factors.items():
            target.copy_(_factor(self, factor, columns))
        self._file.end()

    @torch.inference_mode()
    def _fetch(
        self, factors: Mapping[tuple[Factor, int], Tensor], allocated: torch.cuda.Event | None,
        sent: Future[None],
    ) -> None:
        """Copy, in this thread, until nothing is left; behind an event where there is one, and
        when factors are there. These are held on to until the device has read them: their memory
        is another stream's, which would give it away."""
        self._file.begin(allocated)
        sent.result()
        while True:
            try:
                own = self._left.popleft()
            except IndexError:  # another reader may have taken the last
                break
            if isinstance(own, Span):
                self._file.copy(own)
            elif isinstance(own, _Value):
                own.target.copy_(own.value.result())
            else:
                self._quantise(own)
        self._file.end()
        del factors

    def _quantise(self, whole: _Whole) -> None:
        """Copy a whole parameter and put it in 8 bits: the scale of a row takes all of it. No more
        than one for each reader is held in float32."""
        target, name, factor = whole
        value = torch.empty(target.codes.shape, dtype=torch.float32, device=self.device)
        for span in spans_of([self._place(value, name, factor)]):
            self._file.copy(span)
        target.set(value)


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
