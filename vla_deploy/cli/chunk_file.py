# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk in a file, for `guard explain --chunk`: JSON, or NPZ with arrays of the same names.

    {"joint_names": ["a", "b"],        names of the columns
     "period_s": 0.05,                 time between two samples
     "data": [[0.0, 0.1], …],          samples, rad or m; with control_mode velocity rad/s or m/s
     "measured": [0.0, 0.1],           optional: where the robot stands; without it, at sample 0
     "control_mode": "position"}       optional: position or velocity
"""

from __future__ import annotations

import difflib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_deploy.core.chunk import Chunk
from vla_deploy.core.guard_io import JointState
from vla_deploy.core.verify import CONTROL_MODES
from vla_deploy.files import FileError, read_bytes

MAX_BYTES = 64 * 2**20
REQUIRED = ('joint_names', 'period_s', 'data')
OPTIONAL = ('measured', 'control_mode')
STAMP_NS = 1_000_000_000  # the chunk begins at some time; it does not matter at which
VALID_NS = 1_000_000_000


def read_chunk(path: Path) -> tuple[Chunk, JointState | None]:
    """Return the chunk of a file and the measurement beside it; raises FileError."""
    data = read_bytes(path, MAX_BYTES)
    try:
        values = _npz(data) if data[:2] == b'PK' else json.loads(data)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, RecursionError) as error:
        raise FileError(f'{path}: is neither JSON nor NPZ: {error}') from None
    try:
        return _chunk(values)
    except (TypeError, ValueError) as error:
        raise FileError(f'{path}: {error}') from None


def _npz(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _chunk(values: Any) -> tuple[Chunk, JointState | None]:
    if not isinstance(values, Mapping):
        raise TypeError('must be a mapping')
    for key in values:
        if key not in REQUIRED + OPTIONAL:
            near = difflib.get_close_matches(str(key), REQUIRED + OPTIONAL, n=1)
            raise ValueError(f'unknown key {key}' + (f'; did you mean {near[0]!r}?' if near else
                                                     ''))
    for key in REQUIRED:
        if key not in values:
            raise ValueError(f'missing key {key}')
    mode = str(values.get('control_mode', 'position'))
    if mode not in CONTROL_MODES:
        raise ValueError(f'control_mode is {mode!r}, not one of {", ".join(CONTROL_MODES)}')
    names = _names(values['joint_names'])
    chunk = Chunk(
        session_id='explain', seq=0, stamp_ns=STAMP_NS, observation_stamp_ns=STAMP_NS,
        valid_until_ns=STAMP_NS + VALID_NS, period_s=_seconds(values['period_s']),
        control_mode=CONTROL_MODES[mode], joint_names=names,
        data=_array(values['data'], 'data'),
    )
    measured = None
    if 'measured' in values:
        position = _array(values['measured'], 'measured')
        if position.shape != (len(names),):
            raise ValueError(f'measured is {list(position.shape)}, not one position for each of '
                             f'{len(names)} joint_names')
        measured = JointState(STAMP_NS, names, position)
    return chunk, measured


def _names(values: Any) -> tuple[str, ...]:
    names = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f'joint_names is {names!r}, not a list of names')
    return tuple(names)


def _seconds(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f'period_s is {value!r}, not a number of seconds') from None


def _array(values: Any, key: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'{key} is not an array of numbers: {error}') from None
