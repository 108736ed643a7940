# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a policy sees at one moment, and what makes that unusable."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_deploy.core.contract import Contract


class ObservationError(ValueError):
    """An observation cannot be used; the message begins with the stream that is wrong."""


class PromptError(ObservationError):
    """The instruction holds what the policy cannot be given; the message names that part."""


@dataclasses.dataclass(frozen=True, eq=False)
class Observation:
    """One moment: `images` uint8 [height, width, 3] RGB by camera name (or the checkpoint's key),
    `state` [dim] in the contract's joint order and units, `instruction` in plain text."""

    images: Mapping[str, NDArray[np.uint8]]
    state: ArrayLike
    instruction: str


@dataclasses.dataclass(frozen=True, eq=False)
class CheckedObservation:
    """An observation that fits the contract: images of the cameras that are there, in the
    contract's order, the names of those that are not, and the state as float32 [dim]."""

    images: tuple[NDArray[np.uint8], ...]
    missing_cameras: tuple[str, ...]
    state: NDArray[np.float32]
    instruction: str


def check_observation(observation: Observation, contract: Contract) -> CheckedObservation:
    """Check an observation against the contract.

    A camera that is missing is allowed as long as one is there: the policy is told so by its mask.
    An empty instruction is one that a policy can be given; a front that must not pass it on says
    so itself. Raises ObservationError: no camera at all, an unknown one, an image of another type
    or shape, a state of another length or not finite, an instruction that is not text.
    """
    images = _images_by_name(observation.images, contract)
    present = [name for name in contract.camera_names if name in images]
    if not present:
        names = ', '.join(contract.camera_names)
        raise ObservationError(f'image: no camera is there; the policy knows {names}')
    for name in present:
        _check_image(name, images[name])
    return CheckedObservation(
        images=tuple(images[name] for name in present),
        missing_cameras=tuple(name for name in contract.camera_names if name not in images),
        state=_check_state(observation.state, contract.state.dim, contract.state.joints),
        instruction=_check_instruction(observation.instruction),
    )


def _images_by_name(
    images: Mapping[str, NDArray[np.uint8]], contract: Contract
) -> dict[str, NDArray[np.uint8]]:
    known = {camera.key: camera.name for camera in contract.cameras}
    known |= {camera.name: camera.name for camera in contract.cameras}
    by_name: dict[str, NDArray[np.uint8]] = {}
    for given, image in images.items():
        if given not in known:
            near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.0)
            raise ObservationError(
                f'image/{given}: the policy has no such camera; did you mean {near[0]!r}?'
            )
        if known[given] in by_name:
            raise ObservationError(f'image/{given}: is given twice, by name and by key')
        by_name[known[given]] = image
    return by_name


def _check_image(name: str, image: Any) -> None:
    if not isinstance(image, np.ndarray):
        raise ObservationError(
            f'image/{name}: must be a numpy array, not {type(image).__name__}'
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ObservationError(
            f'image/{name}: must be uint8 [height, width, 3] in RGB, '
            f'not {image.dtype} {list(image.shape)}'
        )


def _check_instruction(instruction: Any) -> str:
    if not isinstance(instruction, str):
        raise ObservationError(f'instruction: must be text, not {type(instruction).__name__}')
    return instruction


def _check_state(
    state: ArrayLike, dim: int, joints: Sequence[str] | None
) -> NDArray[np.float32]:
    try:
        with np.errstate(over='ignore'):  # what is too large becomes infinite, and is refused
            values = np.asarray(state, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ObservationError(f'joint_states: must be {dim} numbers: {error}') from error
    if values.shape != (dim,):
        raise ObservationError(
            f'joint_states: must be {dim} numbers, not of shape {list(values.shape)}'
        )
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        name = joints[index] if joints is not None else f'element {index}'
        raise ObservationError(f'joint_states: {name} is {values[index]}, not finite')
    return values
