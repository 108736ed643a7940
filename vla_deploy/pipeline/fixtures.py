# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of a bundle: recorded observations, and the reference's own answer to each."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.pipeline.bundle import BundleError
from vla_deploy.pipeline.observation import Observation

Float32 = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Fixture:
    """An observation, noise float32 [steps, padded_dim] and the reference's `chunk` in model
    space, of the same shape."""

    observation: Observation
    noise: Float32
    chunk: Float32


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """How far the served chunks are from the reference's: the largest difference of any element
    and the smallest cosine of any chunk. NaN anywhere does not pass."""

    max_abs: float
    threshold: float
    cosine: float
    passed: bool


def read_fixtures(path: str | os.PathLike[str], contract: Contract) -> list[Fixture]:
    """Read fixtures.npz: arrays fixture<i>/{image/<camera>, state, instruction, noise,
    chunk_model}. Raises BundleError, which names the file and the array."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BundleError(f'{path}: is not readable: {error}') from error
    count = len({name.split('/')[0] for name in arrays})
    if count == 0:
        raise BundleError(f'{path}: holds no fixture')
    try:
        return [_fixture(arrays, f'fixture{i}/', contract) for i in range(count)]
    except KeyError as error:
        raise BundleError(f'{path}: {error.args[0]} is missing') from error
    except ValueError as error:
        raise BundleError(f'{path}: {error}') from error


def write_fixtures(path: str | os.PathLike[str], fixtures: Iterable[Fixture]) -> None:
    """Write what `read_fixtures` reads."""
    arrays: dict[str, Any] = {}
    for i, fixture in enumerate(fixtures):
        prefix = f'fixture{i}/'
        for camera, image in fixture.observation.images.items():
            arrays[f'{prefix}image/{camera}'] = image
        arrays[f'{prefix}state'] = np.asarray(fixture.observation.state, np.float32)
        arrays[f'{prefix}instruction'] = np.array(fixture.observation.instruction)
        arrays[f'{prefix}noise'] = fixture.noise
        arrays[f'{prefix}chunk_model'] = fixture.chunk
    np.savez_compressed(path, **arrays)


def compare(pairs: Iterable[tuple[Float32, Float32]], threshold: float) -> SelfTest:
    """Compare (served, reference) chunks in float64."""
    errors, cosines = [], []
    for served, reference in pairs:
        a, b = served.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
        errors.append(float(np.abs(a - b).max()))
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        cosines.append(float(a @ b / norms) if norms > 0 else float(np.array_equal(a, b)))
    max_abs, cosine = float(np.max(errors)), float(np.min(cosines))
    return SelfTest(max_abs, threshold, cosine, passed=max_abs <= threshold)


def _fixture(arrays: dict[str, Any], prefix: str, contract: Contract) -> Fixture:
    shape = (contract.chunk_steps, contract.action.padded_dim)
    for name in ('noise', 'chunk_model'):
        array = arrays[prefix + name]
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f'{prefix}{name} must be float32 {list(shape)}')
    start = f'{prefix}image/'
    observation = Observation(
        images={
            name.removeprefix(start): array
            for name, array in arrays.items()
            if name.startswith(start)
        },
        state=arrays[f'{prefix}state'],
        instruction=str(arrays[f'{prefix}instruction']),
    )
    return Fixture(observation, arrays[f'{prefix}noise'], arrays[f'{prefix}chunk_model'])
