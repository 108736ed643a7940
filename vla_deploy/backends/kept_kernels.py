# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled kernels in a folder: by what they are called with, and loaded without compiling.

The table says what is called how; machine code and launchers are files named by their digests.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from vla_deploy.backends.triton_launch import Launch
from vla_deploy.core import strict
from vla_deploy.files import write_bytes
from vla_deploy.pipeline.backend import PolicyError

TABLE = 'kernels.json'
COMPILING_S = 0.05  # what Triton compiled before takes less to load
NOT_A_TABLE = (OSError, ValueError, TypeError, AttributeError)


class Driver(Protocol):
    """What Triton loads and launches kernels with."""

    def load(self, name: str, code: bytes, shared: int, device: int) -> int:
        """Load a kernel's machine code; returns its function."""

    def launcher_of(self, compiled: Any) -> Path | None:
        """Return the file with what launches a kernel that Triton has compiled, if there is one."""

    def launch_in(self, path: Path) -> Any:
        """Return what such a file launches with."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """A kernel's name and shared memory, how it is launched (what Triton packs of its metadata,
    whether all its programs run at once, and whether it starts before the one in front has ended),
    and the files of its machine code and of its launcher."""

    name: str
    shared: int
    packed: tuple[int, ...]
    cooperative: bool
    overlaps: bool
    code: str
    launcher: str


class Kernel:
    """A compiled kernel and its constants, launched on the current stream."""

    def __init__(
        self, launch: Any, function: int, kept: Kept, constants: Sequence[Any], device: int
    ) -> None:
        """`launch`: of Triton's launcher, with `function` as the driver knows it."""
        self._launch, self._function, self._device = launch, function, device
        self._how = (kept.cooperative, kept.overlaps, None, None, tuple(kept.packed), *[None] * 3)
        self._constants = tuple(constants)

    def __call__(self, grid: tuple[int, int, int], arguments: Sequence[Any]) -> None:
        """Launch it; arguments are of the kinds that it was compiled for."""
        stream = torch._C._cuda_getCurrentRawStream(self._device)
        self._launch(*grid, stream, self._function, *self._how, *arguments, *self._constants)


class KeptKernels:
    """What is kept of a policy in a folder, and what is to be."""

    def __init__(self, folder: Path, device: int, driver: Driver | None) -> None:
        """Raises PolicyError for a table that is none. Without a driver nothing is kept."""
        self._folder, self._device, self._driver, path = folder, device, driver, folder / TABLE
        self._new: dict[str, bytes] = {}  # files, by name
        self._kept: dict[str, Kept] = {}
        self.used: set[str] = set()  # what is to be kept
        # what launches each, and its function as the driver knows it
        self._loaded: dict[str, tuple[Any, int]] = {}
        try:
            if driver is not None and path.is_file():
                rows = json.loads(path.read_text(encoding='utf-8'))
                self._kept = {k: strict.from_mapping(Kept, row, k) for k, row in rows.items()}
        except NOT_A_TABLE as error:
            raise PolicyError(
                f'{path}: is not a table of compiled kernels ({error}); remove it, and they are '
                'compiled again'
            ) from error

    def launch_of(
        self, kernel: Any, arguments: Sequence[Any], constants: dict[str, Any],
        kinds: Sequence[Any],
    ) -> Launch:
        """Return what launches a kernel of Triton's with these constants and kinds of arguments:
        one that was kept, or is compiled now."""
        values = [constants[name] for name in kernel.arg_names[len(arguments):]]
        key = _digest(repr((kernel.__name__, sorted(constants.items()), *kinds)).encode())
        found = self._find(key, values)
        if found is not None:
            return found
        begin = time.perf_counter()
        compiled = kernel.warmup(*arguments, grid=(1,), **constants)
        self._add(key, compiled)
        compiled.asm.clear()  # texts of what it was made from
        if time.perf_counter() - begin > COMPILING_S:
            gc.collect(1)  # what compiling leaves behind, which refers to itself
        return self._find(key, values) or (lambda grid, given: compiled[grid](*given, *values))

    def load(self) -> None:
        """Load what was kept, before it is asked for. Raises PolicyError where a file is damaged;
        warns where it is not but cannot be loaded from there."""
        for key, kept in self._kept.items():
            assert self._driver is not None
            code, _ = self._read(kept.code), self._read(kept.launcher)
            try:
                launch = self._driver.launch_in(self._folder / kept.launcher)
            except ImportError as error:
                warnings.warn(
                    f'{error}; the kernels are compiled again at each start; set VLA_DEPLOY_CACHE '
                    'to a folder that programs may be loaded from',
                    stacklevel=2,
                )
                return
            function = self._driver.load(kept.name, code, kept.shared, self._device)
            self._loaded[key] = launch, function

    def _find(self, key: str, constants: Sequence[Any]) -> Kernel | None:
        """Return a kernel that was loaded, or none."""
        if key not in self._loaded:
            return None
        self.used.add(key)
        return Kernel(*self._loaded[key], self._kept[key], constants, self._device)

    def _add(self, key: str, compiled: Any) -> None:
        """Let a kernel that Triton has compiled be found, and kept; unless it cannot be launched
        by this way: it takes memory of Triton's, or its launcher is not in a file."""
        if self._driver is None:
            return
        meta, run = compiled.metadata, compiled.run  # which loads it
        path = self._driver.launcher_of(compiled)
        if meta.global_scratch_size or meta.profile_scratch_size or path is None:
            return
        code, launcher = compiled.kernel, path.read_bytes()
        kept = Kept(
            meta.name, meta.shared, tuple(compiled.packed_metadata),
            bool(meta.launch_cooperative_grid), bool(meta.launch_pdl),
            f'{_digest(code)}.cubin', f'{_digest(launcher)}{path.suffix}',
        )
        self._new |= {kept.code: code, kept.launcher: launcher}
        self._kept[key], self._loaded[key] = kept, (run.launch, compiled.function)

    def save(self) -> None:
        """Keep what was used; where that cannot be, warn that each start will take longer."""
        if self.used == self._kept.keys() and not self._new:
            return
        path, used = self._folder / TABLE, {key: self._kept[key] for key in sorted(self.used)}
        files = {name for kept in used.values() for name in (kept.code, kept.launcher)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in files & self._new.keys():
                write_bytes(self._folder / name, self._new[name])
            rows = {key: dataclasses.asdict(kept) for key, kept in used.items()}
            write_bytes(path, (json.dumps(rows, indent=0) + '\n').encode())
        except OSError as error:
            warnings.warn(
                f'{path}: cannot be written ({error.strerror}), so that each start looks for the '
                'kernels longer; set VLA_DEPLOY_CACHE to a folder that can',
                stacklevel=2,
            )
        self._new.clear()

    def _read(self, name: str) -> bytes:
        """Return a file whose name begins with its digest."""
        path = self._folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PolicyError(f'{path}: {error.strerror}; {self._again()}') from error
        if _digest(data) != name.partition('.')[0]:
            raise PolicyError(f'{path}: is damaged; {self._again()}')
        return data

    def _again(self) -> str:
        return f'remove {self._folder}, and its kernels are compiled again'


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
