# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What stands where in a simulated world. The defaults are the FR3's, whose policy has seen them.

Lengths in m, angles in degrees. Positions are in the robot's base frame, but those of a camera that
is mounted on a link, which are in the link's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

Point = tuple[float, float, float]

CUBE_COLOURS: dict[str, tuple[float, float, float, float]] = {
    'red': (0.85, 0.1, 0.1, 1.0),
    'green': (0.1, 0.7, 0.15, 1.0),
    'blue': (0.1, 0.2, 0.85, 1.0),
}


class SceneError(ValueError):
    """The scene cannot be built or asked for; the message names the joint, cube or link."""


@dataclasses.dataclass(frozen=True)
class CameraSize:
    """Image size of one camera [pixels]."""

    width: int = 256
    height: int = 256


@dataclasses.dataclass(frozen=True)
class CameraMount:
    """Where a camera is: at `position`, looking at `target`, with `up` upward in its image.

    An empty `link` is the base frame, in which the camera stands still.
    """

    position: Point
    target: Point
    up: Point
    fovy_deg: float
    link: str = ''


def franka_mounts() -> dict[str, CameraMount]:
    """Return the two cameras of the FR3."""
    return {
        'front': CameraMount((1.15, 0.0, 0.75), (0.48, 0.0, 0.05), (0.0, 0.0, 1.0), 40.0),
        'wrist': CameraMount(
            (0.08, 0.0, 0.03), (0.045, 0.0, 0.2), (1.0, 0.0, 0.0), 75.0, 'fr3_hand'
        ),
    }


@dataclasses.dataclass(frozen=True)
class SceneConfig:
    """One world. `cameras` are those that are drawn, of the ones that `mounts` has."""

    cameras: Mapping[str, CameraSize] = dataclasses.field(
        default_factory=lambda: {'front': CameraSize(), 'wrist': CameraSize()}
    )
    mounts: Mapping[str, CameraMount] = dataclasses.field(default_factory=franka_mounts)
    time_step_s: float = 0.002
    cube_edge: float = 0.05
    tool_link: str = 'fr3_hand_tcp'
    table_centre: tuple[float, float] = (0.35, 0.0)
    table_size: tuple[float, float] = (1.3, 1.2)
