# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A table of a policy's own parameters in the weights file of its graphs.

The graphs hold most parameters already, linear weights transposed; the table says where, so that
a backend that knows the architecture reads the very bytes that the graphs read. What no graph
holds as it is (small tensors, which lie inside the graphs, and folded ones) is appended.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray

from vla_deploy.core import strict
from vla_deploy.core.canonical import canonical_json
from vla_deploy.models.families import FlowPolicy
from vla_deploy.pipeline.bundle import PARAMETERS, PREFIX_GRAPH, STEP_GRAPH, WEIGHTS

SCHEMA_VERSION = 1
ALIGNMENT_BYTES = 64
KEY_BYTES = 256
COMPARED_BYTES = 1 << 24
Ranges = dict[tuple[int, bytes], list[int]]


def write_parameters(folder: Path, family: str, model: FlowPolicy) -> None:
    """Write the table beside the graphs of `folder`, and what they lack to the weights file.

    Raises OSError where a file cannot be written.
    """
    with open(folder / WEIGHTS, 'r+b') as file:
        ranges = _ranges(folder, file)
        tensors = {
            name: _place(file, ranges, parameter.detach().numpy())
            for name, parameter in model.named_parameters()
        }
    table = {
        'schema_version': SCHEMA_VERSION,
        'family': family,
        'model': strict.to_mapping(model.config),
        'tensors': tensors,
    }
    (folder / PARAMETERS).write_bytes(canonical_json(table))


def _place(file: BinaryIO, ranges: Ranges, array: NDArray[np.float32]) -> dict[str, Any]:
    """Return the entry of a parameter: where its bytes lie, and whether its axes are swapped."""
    shape = list(array.shape)
    offset = _find(file, ranges, array.T) if array.ndim == 2 else None
    if offset is not None:
        return {'shape': shape, 'offset': offset, 'transposed': True}
    offset = _find(file, ranges, array)
    if offset is None:
        file.seek(0, 2)
        file.write(b'\0' * (-file.tell() % ALIGNMENT_BYTES))
        offset = file.tell()
        file.write(np.ascontiguousarray(array).data)
    return {'shape': shape, 'offset': offset, 'transposed': False}


def _find(file: BinaryIO, ranges: Ranges, array: NDArray[np.float32]) -> int | None:
    """Return where the graphs' weights hold exactly these bytes."""
    first = array.flat[: KEY_BYTES // array.itemsize].tobytes()
    if (array.nbytes, first) not in ranges:  # an embedding is not turned in vain
        return None
    for offset in ranges[array.nbytes, first]:
        if _lies_at(file, offset, array):
            return offset
    return None


def _lies_at(file: BinaryIO, offset: int, array: NDArray[np.float32]) -> bool:
    """Compare piece by piece: an embedding is 2 GB, and so would be each copy of it."""
    rows = np.atleast_1d(array)
    step = max(1, COMPARED_BYTES * len(rows) // max(1, rows.nbytes))
    file.seek(offset)
    for start in range(0, len(rows), step):
        piece = rows[start : start + step].tobytes()
        if file.read(len(piece)) != piece:
            return False
    return True


def _ranges(folder: Path, file: BinaryIO) -> Ranges:
    """Return the offsets of the graphs' external tensors by length and first bytes."""
    found: Ranges = {}
    for offset, length in sorted(set(_external(folder))):
        file.seek(offset)
        found.setdefault((length, file.read(min(length, KEY_BYTES))), []).append(offset)
    return found


def _external(folder: Path) -> Iterator[tuple[int, int]]:
    for name in (PREFIX_GRAPH, STEP_GRAPH):
        graph = onnx.load(folder / name, load_external_data=False).graph
        for tensor in graph.initializer:
            entry = {item.key: item.value for item in tensor.external_data}
            if entry:
                yield int(entry['offset']), int(entry['length'])
