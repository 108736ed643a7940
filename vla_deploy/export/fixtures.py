# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of a bundle: seeded raw observations that every stage of the pipeline is compared on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.pipeline.observation import Observation

SEED = 20260101
# Blocks keep the file small when compressed; their edges exercise the resize.
_BLOCK_PIXELS = 4
_LONG_TEXT = 'put every small part into the grey tray on the left side, one after the other; '
_INSTRUCTIONS = ('pick up the red cube', 'open the drawer\nthen close it\n', _LONG_TEXT * 12)


@dataclass(frozen=True, eq=False)
class Case:
    """Raw inputs of one chunk: an observation, and noise float32 [steps,padded_dim]."""

    observation: Observation
    noise: NDArray[np.float32]


def make_cases(
    contract: Contract, statistics: Mapping[str, NDArray[np.float32]]
) -> tuple[Case, ...]:
    """Return cases at the cameras' own size, at another size, and with a camera absent.

    States are drawn from the checkpoint's own statistics, so that the normalised state is what
    the policy was trained on. The third text is longer than the prompt may be.
    """
    generator = np.random.Generator(np.random.Philox(SEED))
    cases = []
    for index, instruction in enumerate(_INSTRUCTIONS):
        images = {}
        for camera in contract.cameras:
            width = camera.width if index != 1 else camera.width * 4 // 3
            images[camera.name] = _image(generator, camera.height, width)
        if index == len(_INSTRUCTIONS) - 1 and len(images) > 1:
            del images[contract.cameras[0].name]
        shape = (contract.chunk_steps, contract.action.padded_dim)
        state = _state(generator, contract, statistics)
        noise = generator.standard_normal(shape, dtype=np.float32)
        cases.append(Case(Observation(images, state, instruction), noise))
    return tuple(cases)


def _image(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    blocks = (-(-height // _BLOCK_PIXELS), -(-width // _BLOCK_PIXELS), 3)
    colours = generator.integers(0, 256, blocks, dtype=np.uint8)
    image = colours.repeat(_BLOCK_PIXELS, axis=0).repeat(_BLOCK_PIXELS, axis=1)
    return np.ascontiguousarray(image[:height, :width])


def _state(
    generator: np.random.Generator,
    contract: Contract,
    statistics: Mapping[str, NDArray[np.float32]],
) -> NDArray[np.float32]:
    mode = contract.state.normalization.mode
    normal = generator.standard_normal(contract.state.dim).astype(np.float32)
    if mode == 'mean_std':
        return statistics['state.mean'] + normal * statistics['state.std']
    if mode == 'identity':
        return normal
    names = ('state.q01', 'state.q99') if mode == 'quantiles' else ('state.min', 'state.max')
    low, high = (statistics[name] for name in names)
    return (low + (high - low) * (0.5 + 0.25 * normal)).astype(np.float32)
