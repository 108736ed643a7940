# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels that Triton compiled, found again by other means than its own.

Triton keeps what it compiled as well, but to find it again it parses each kernel's source and
names what it would compile: some 3 ms of Python a kernel, beside threads that need the interpreter
themselves. Here they are found by a digest of kernel, constants and kinds of arguments, in a folder
whose name is a digest of all else that a compiled kernel depends on. Only with versions of Triton
whose launchers this was tested with; with any other, Triton finds its kernels by itself.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sysconfig
from pathlib import Path
from typing import Any

import torch
import triton
from triton.runtime import driver

from vla_deploy.backends.kept_kernels import KeptKernels
from vla_deploy.backends.triton_identity import TESTED, identity
from vla_deploy.share import cache_folder

HERE = Path(__file__).parent
LAUNCHER, SUFFIX = '__triton_launcher', str(sysconfig.get_config_var('EXT_SUFFIX'))
# variables that say what is compiled, and those of them that say where it is put
OF_KERNELS = ('TRITON_', 'PTXAS_', 'DISABLE_', 'LLVM_', 'MLIR_')
NOT_OF_KERNELS = ('TRITON_CACHE_DIR', 'TRITON_HOME')


class TritonDriver:
    """See `kept_kernels.Driver`."""

    def load(self, name: str, code: bytes, shared: int, device: int) -> int:
        """See Driver."""
        _, function, *_ = driver.active.utils.load_binary(name, code, shared, device)
        return int(function)

    def launcher_of(self, compiled: Any) -> Path | None:
        """See Driver. By the name that Triton gives it."""
        # of the versions that this was tested with; others may not have them
        from triton.backends.nvidia.driver import make_launcher
        from triton.runtime.build import platform_key
        from triton.runtime.cache import get_cache_manager

        source = compiled.src
        constants = {
            (source.fn.arg_names.index(place),) if isinstance(place, str) else place: value
            for place, value in source.constants.items()
        }
        described = getattr(compiled.metadata, 'tensordesc_meta', None)
        text = make_launcher(constants, dict(source.signature), described) + platform_key()
        key = hashlib.sha256(text.encode()).hexdigest()
        path = get_cache_manager(key).get_file(LAUNCHER + SUFFIX)
        return None if path is None else Path(path)

    def launch_in(self, path: Path) -> Any:
        """See Driver."""
        return _launch_in(path)


def open_kept(policy: str, device: int) -> KeptKernels:
    """Return what is kept for a policy of that name on a device, which this thread uses from now
    on, loaded; nothing with a Triton that this was not tested with."""
    torch.cuda.set_device(device)
    folder = _depends_on(torch.cuda.get_device_capability(device))
    path = cache_folder() / 'kernels' / folder / policy
    tested = triton.__version__ in TESTED
    kept = KeptKernels(path, device, TritonDriver() if tested else None)
    kept.load()
    return kept


def _depends_on(capability: tuple[int, int]) -> str:
    """Return a short name for what else a compiled kernel and its launcher depend on: sources,
    Triton, what it is told by the environment, Python and the kind of card."""
    told = hashlib.sha256(identity(Path(triton.__file__).parent, triton.__version__).encode())
    for source in sorted(HERE.glob('*.py')):  # kernels read constants of others than their own
        told.update(source.read_bytes())
    for name, value in sorted(os.environ.items()):
        if name.startswith(OF_KERNELS) and name not in NOT_OF_KERNELS:
            found = os.stat(value) if os.path.isfile(value) else None
            file = found and (found.st_size, found.st_mtime_ns)
            told.update(f'{name}={value} {file}\0'.encode())
    told.update(SUFFIX.encode())
    return f'sm_{capability[0]}{capability[1]}_{told.hexdigest()[:16]}'


@functools.cache
def _launch_in(path: Path) -> Any:
    """Return what a launcher's file launches with; several kernels may share one. The function and
    not its module: all have one name, and Python may let one module take the other's contents."""
    spec = importlib.util.spec_from_file_location(LAUNCHER, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.launch
