# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How long the torch backend takes to load a weights file on a GPU, and what the process grows by.

    python bench/gpu/start.py OUTPUT.json [--model smolvla] [--folder FOLDER] [--starts 3]

Writes a file of published size with random weights, and loads it by the way that serves, each time
in a new process: first with empty caches, so that kernels are compiled, then with what the first
left. The file is in the page cache; then as many times, as after a boot, it is not:
it is written to the disk, let go of, and read to see whether that was heeded. Before loading
begins, torch and Triton are imported and the device's context is made. Each start says by when,
in seconds, its parts were done.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from _weights_file import bundle_of, write_weights  # noqa: E402

from vla_deploy.pipeline.bundle import WEIGHTS  # noqa: E402

READ_BYTES = 8 << 20
SLOWER = 1.5  # times as slow is reading at least where the file was let go of


def main() -> int:
    """Write the file, start some processes, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('output', type=Path)
    parser.add_argument('--model', default='smolvla')
    parser.add_argument('--folder', type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument('--starts', type=int, default=3, help='the first one compiles')
    parser.add_argument('--one', action='store_true', help='be one of the processes')
    arguments = parser.parse_args()
    folder = arguments.folder / f'start_{arguments.model}'
    if arguments.one:
        arguments.output.write_text(json.dumps(_load(folder)))
        return 0
    bytes_ = write_weights(arguments.model, folder)
    figures: dict[str, Any] = {'model': arguments.model, 'bytes': bytes_}
    _read(folder)
    figures['reading_s'] = min(_read(folder) for _ in range(3))
    evicted = [_read_evicted(folder) for _ in range(2)]
    figures['reading_from_disk_s'] = min(evicted)
    figures['eviction_worked'] = min(evicted) > SLOWER * figures['reading_s']
    with tempfile.TemporaryDirectory() as cache:
        _read(folder)
        figures['starts'] = [
            _start(arguments, cache, bytes_, figures['reading_s'])
            for _ in range(arguments.starts)
        ]
        figures['starts_from_disk'] = []
        for _ in range(arguments.starts):
            _evict(folder)
            figures['starts_from_disk'].append(
                _start(arguments, cache, bytes_, figures['reading_from_disk_s'])
            )
    arguments.output.write_text(json.dumps(figures, indent=1) + '\n')
    print(json.dumps({k: v for k, v in figures.items() if not k.startswith('starts')}))
    if not figures['eviction_worked']:
        print('the file stayed in memory: starts_from_disk are no starts from the disk')
    return 0


def _start(
    arguments: argparse.Namespace, cache: str, bytes_: int, reading_s: float
) -> dict[str, Any]:
    """Load the file in a new process, print and return what it found."""
    path = Path(cache) / 'figures.json'
    # as an installation does, the first one compiles what Python it imports
    folders = ('TRITON_CACHE_DIR', 'VLA_DEPLOY_CACHE', 'PYTHONPYCACHEPREFIX')
    environment = {**os.environ, **dict.fromkeys(folders, cache)}
    environment.pop('PYTHONDONTWRITEBYTECODE', None)
    subprocess.run(
        [sys.executable, __file__, str(path), '--one', '--model', arguments.model,
         '--folder', str(arguments.folder)],
        check=True, env=environment,
    )
    found: dict[str, Any] = json.loads(path.read_text())
    found['load_of_reading'] = found['load_s'] / reading_s
    found['growth_of_file'] = found['growth_bytes'] / bytes_
    print(json.dumps(found), flush=True)
    return found


def _read(folder: Path) -> float:
    """Return the seconds that one thread takes to read the file."""
    buffer = bytearray(READ_BYTES)
    begin = time.perf_counter()
    with open(folder / WEIGHTS, 'rb', buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begin


def _evict(folder: Path) -> None:
    """Let the system let go of the file's pages, which all have to be on the disk for that."""
    file = os.open(folder / WEIGHTS, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def _read_evicted(folder: Path) -> float:
    """Return the seconds that one thread takes to read the file when it is not in memory."""
    _evict(folder)
    return _read(folder)


class _Parts:
    """When parts of loading were done, in seconds since it began."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.done: dict[str, float] = {}

    def note(self, owner: Any, name: str, part: str) -> None:
        """Note when a function returns: the last time that it is called, or, of a part that is
        called `first_...`, the first."""
        right = getattr(owner, name)

        def noted(*given: Any, **named: Any) -> Any:
            result = right(*given, **named)
            if part not in self.done or not part.startswith('first_'):
                self.done[part] = time.perf_counter() - self.begin
            return result

        setattr(owner, name, noted)


def _load(folder: Path) -> dict[str, Any]:
    """Load the file, and return seconds and bytes."""
    import torch

    from vla_deploy.backends import torch_cuda, torch_start, triton_ops
    from vla_deploy.backends.parameters import BundleParameters
    from vla_deploy.pipeline.backend import BackendOptions

    bundle = bundle_of(folder)
    torch.zeros(1, device='cuda')
    torch.cuda.synchronize()
    parts = _Parts()
    for owner, name, part in (
        (torch_start, '_ask', 'weights_asked_for_s'),
        (torch_start, '_attend', 'attention_planned_s'),
        (torch_start, '_multiply', 'cublas_loaded_s'),
        (torch_cuda, 'make_policy', 'policy_s'),
        (triton_ops.TritonOps, '_wake', 'triton_awake_s'),
        (torch_cuda, 'launch_early', 'launched_early_s'),
        (torch_cuda.TorchCudaBackend, '_begin', 'steps_captured_s'),
        (torch_cuda.FusedPolicy, 'load_products', 'products_s'),
        (torch_cuda, 'tune', 'all_launched_s'),
        (torch_cuda.TorchCudaBackend, 'prepare', 'captures_s'),
        (BundleParameters, '_give_back', 'weights_there_s'),
    ):
        parts.note(owner, name, part)
    torch.cuda.reset_peak_memory_stats()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parts.begin = time.perf_counter()
    backend = torch_cuda.load(
        bundle, BackendOptions(provider='cuda', precision='bf16', variant='unrolled')
    )
    load_s = time.perf_counter() - parts.begin
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = torch.cuda.max_memory_allocated()
    assert math.isfinite(float(backend._moved.sum()))
    weights = sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
         for t in _tensors(backend._policy, set())}.values()
    )
    return {
        'load_s': load_s,
        'parts': dict(sorted(parts.done.items(), key=lambda part: part[1])),
        'growth_bytes': (after - before) << 10,
        'resident_before_bytes': before << 10,
        'gpu_weights_bytes': weights,
        'gpu_peak_bytes': peak,
        'gpu_peak_of_weights': peak / weights,
    }


def _tensors(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the tensors that an object holds, weights, keys and values among them."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if type(value).__name__ == 'Tensor':
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, seen)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item, seen)
    elif type(value).__module__.startswith('vla_deploy'):
        yield from _tensors(vars(value), seen)


if __name__ == '__main__':
    sys.exit(main())
