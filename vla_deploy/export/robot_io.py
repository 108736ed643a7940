# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""robot_io.yaml: what a checkpoint does not say about the robot it was trained on.

    period_s: 0.1
    state: {joints: [joint1, joint2], units: [rad, rad]}
    action:
      joints: [joint1, joint2]
      units: [rad, rad]
      control_mode: position
      first_sample_offset_steps: 1
    cameras: [{key: observation.images.front, name: front}]   # or null: named by their keys
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vla_deploy.core import strict
from vla_deploy.export.source import CheckpointError
from vla_deploy.files import FileError, read_yaml

FILE_NAME = 'robot_io.yaml'


@dataclass(frozen=True)
class RobotState:
    """Joints of the state vector in the policy's order, and their units."""

    joints: tuple[str, ...]
    units: tuple[str, ...]


@dataclass(frozen=True)
class RobotAction:
    """Joints that an action commands, their units, and how."""

    joints: tuple[str, ...]
    units: tuple[str, ...]
    control_mode: str
    first_sample_offset_steps: int


@dataclass(frozen=True)
class CameraName:
    """The short name of the camera that the checkpoint calls `key`."""

    key: str
    name: str


@dataclass(frozen=True)
class RobotIo:
    """The whole file; `period_s` is the time between two actions."""

    period_s: float
    state: RobotState
    action: RobotAction
    cameras: tuple[CameraName, ...] | None


def read_robot_io(checkpoint: Path, given: Path | None) -> RobotIo | None:
    """Read the given file, or the checkpoint's own; None where there is neither."""
    path = given or checkpoint / FILE_NAME
    if given is None and not path.is_file():
        return None
    try:
        return strict.from_mapping(RobotIo, read_yaml(path))
    except FileError as error:
        raise CheckpointError(str(error)) from None
    except strict.SchemaError as error:
        raise CheckpointError(f'{path}: {error}') from None
