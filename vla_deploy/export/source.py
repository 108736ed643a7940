# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Reading the JSON and safetensors files of a checkpoint, with errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vla_deploy.files import FileError, read_bytes

MAX_JSON_BYTES = 64 << 20
T = TypeVar('T')


class CheckpointError(ValueError):
    """A checkpoint cannot be exported; the one-line message names the file and what to do."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError, which names the file."""
    try:
        value = json.loads(read_bytes(path, MAX_JSON_BYTES).decode('utf-8'))
    except FileError as error:
        raise CheckpointError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f'{path}: is not JSON: {error}') from None
    if not isinstance(value, dict):
        raise CheckpointError(f'{path}: must be a JSON object')
    return value


def need(values: Mapping[str, Any], key: str, kind: type[T], where: object) -> T:
    """Return `values[key]`, which must be of `kind` (an int passes for a float)."""
    if not isinstance(values, Mapping):
        raise CheckpointError(f'{where}: must be an object, not {values!r}')
    if key not in values:
        raise CheckpointError(f'{where}: key {key!r} is missing')
    value = values[key]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise CheckpointError(f'{where}: {key} must be {kind.__name__}, not {value!r}')
    return value


def read_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read a small safetensors file whole, as float32; values must be finite."""
    arrays = {}
    try:
        with safe_open(path, framework='np') as file:
            names = list(file.keys())
            for name in names:
                arrays[name] = file.get_tensor(name).astype(np.float32)
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from None
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f'{path}: {name} holds NaN or infinity; compute it again')
    return arrays


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a safetensors file that is missing, cut off or damaged."""
    if not path.is_file():
        return CheckpointError(f'{path}: is missing; copy the whole checkpoint folder')
    reason = ' '.join(str(error).split())
    return CheckpointError(f'{path}: cannot be read, copy it again: {reason}')
