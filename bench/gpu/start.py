# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How long the torch backend takes to load a weights file on a GPU, and what the process grows by.

    python bench/gpu/start.py OUTPUT.json [--model smolvla] [--folder FOLDER] [--starts 3]

Writes a file of published size with random weights, and loads it by the way that serves, each time
in a new process: first with an empty cache of Triton's, so that kernels are compiled, then with
what the first left. The file is in the page cache. Before loading begins, torch and Triton are
imported and the device's context is made.
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
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

READ_BYTES = 8 << 20
ALIGNMENT_BYTES = 64
NOISE_ELEMENTS = 1 << 22
SMALL = 0.02


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
    bytes_ = _write(arguments.model, folder)
    figures: dict[str, Any] = {'model': arguments.model, 'bytes': bytes_}
    _read(folder)
    figures['reading_s'] = min(_read(folder) for _ in range(3))
    figures['starts'] = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(arguments.starts):
            path = Path(cache) / 'figures.json'
            subprocess.run(
                [sys.executable, __file__, str(path), '--one', '--model', arguments.model,
                 '--folder', str(arguments.folder)],
                check=True, env={**os.environ, 'TRITON_CACHE_DIR': cache},
            )
            found = json.loads(path.read_text())
            found['load_of_reading'] = found['load_s'] / figures['reading_s']
            found['growth_of_file'] = found['growth_bytes'] / bytes_
            figures['starts'].append(found)
            print(json.dumps(found), flush=True)
    arguments.output.write_text(json.dumps(figures, indent=1) + '\n')
    print(json.dumps({k: v for k, v in figures.items() if k != 'starts'}))
    return 0


def _write(name: str, folder: Path) -> int:
    """Write weights and their table as export does; return the weights' bytes."""
    import torch

    from vla_deploy.backends.parameters import SCHEMA_VERSION
    from vla_deploy.core import strict
    from vla_deploy.models.pi import Pi
    from vla_deploy.models.published import PUBLISHED
    from vla_deploy.models.smolvla import SmolVLA, SmolVLAConfig
    from vla_deploy.pipeline.bundle import PARAMETERS, WEIGHTS

    config = PUBLISHED[name]
    with torch.device('meta'):
        model = (SmolVLA if isinstance(config, SmolVLAConfig) else Pi)(config)
    noise = np.random.default_rng(0).standard_normal(NOISE_ELEMENTS, np.float32) * SMALL
    tensors, end = {}, 0
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / WEIGHTS, 'wb') as file:
        for parameter, value in model.named_parameters():
            end += -end % ALIGNMENT_BYTES
            file.seek(end)
            tensors[parameter] = {
                'shape': list(value.shape), 'offset': end,
                'transposed': value.dim() == 2 and 'embed' not in parameter,
            }
            for begin in range(0, value.numel(), NOISE_ELEMENTS):
                file.write(noise[: value.numel() - begin].data)
            end += value.numel() * noise.itemsize
    table = {
        'schema_version': SCHEMA_VERSION, 'family': name, 'model': strict.to_mapping(config),
        'tensors': tensors,
    }
    (folder / PARAMETERS).write_text(json.dumps(table))
    return end


def _read(folder: Path) -> float:
    """Return the seconds that one thread takes to read the file."""
    from vla_deploy.pipeline.bundle import WEIGHTS

    buffer = bytearray(READ_BYTES)
    begin = time.perf_counter()
    with open(folder / WEIGHTS, 'rb', buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begin


def _load(folder: Path) -> dict[str, Any]:
    """Load the file, and return seconds and bytes."""
    import torch

    from vla_deploy.backends import torch_cuda, triton_ops  # noqa: F401
    from vla_deploy.core.contract import TimeEmbedding
    from vla_deploy.models.expert import expert_sizes
    from vla_deploy.models.published import PUBLISHED
    from vla_deploy.models.smolvla import SmolVLAConfig
    from vla_deploy.pipeline.backend import BackendOptions
    from vla_deploy.pipeline.bundle import PARAMETERS

    config = PUBLISHED[folder.name.removeprefix('start_')]
    if isinstance(config, SmolVLAConfig):
        width, _ = expert_sizes(config.text, config.expert_width_multiplier)
    else:
        width = config.expert.hidden_size
    bundle: Any = SimpleNamespace(
        path=folder, receipt={'files': {PARAMETERS: ''}},
        contract=SimpleNamespace(
            time_embedding=TimeEmbedding(width, config.min_period, config.max_period),
            denoise_steps=config.num_steps, reserved_inputs=(),
            cameras=range(config.camera_slots),
        ),
    )
    torch.zeros(1, device='cuda')
    torch.cuda.synchronize()
    serving: list[float] = []
    serve = torch_cuda.serve

    def timed(*given: Any) -> Any:
        serving.append(time.perf_counter())
        return serve(*given)

    torch_cuda.serve = timed
    torch.cuda.reset_peak_memory_stats()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    backend = torch_cuda.load(
        bundle, BackendOptions(provider='cuda', precision='bf16', variant='unrolled')
    )
    end = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = torch.cuda.max_memory_allocated()
    assert math.isfinite(float(backend._moved.sum()))
    weights = sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
         for t in _tensors(backend._policy, set())}.values()
    )
    return {
        'load_s': end - begin,
        'weights_s': serving[0] - begin,
        'graphs_s': end - serving[0],
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
