# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk of actions, as inference sends it and the guard receives it; nothing is checked here."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 1


class ControlMode(enum.IntEnum):
    """What the columns of a chunk are; the same numbers as in ActionChunk.msg."""

    POSITION = 1
    VELOCITY = 2


@dataclass(frozen=True, eq=False)
class Chunk:
    """Actions of one inference in robot units; sample i is wanted at stamp_ns + i * period_s.

    data: float64 [steps, joints], rad or m (POSITION), rad/s or m/s (VELOCITY).
    anchor_position: float64 [joints], the measured positions in the observation; may be empty.
    ends_session: nothing follows in this session, and there are no actions.
    Times are ROS time in ns. A chunk may hold anything, NaN included: `verify_chunk` judges it.
    """

    session_id: str
    seq: int
    stamp_ns: int
    observation_stamp_ns: int
    valid_until_ns: int
    period_s: float
    control_mode: int
    joint_names: tuple[str, ...]
    data: NDArray[np.float64]
    anchor_position: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    schema_version: int = SCHEMA_VERSION
    model_sha256: str = ''
    ends_session: bool = False
