# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Joints that turn without end: the same pose has many positions, a whole turn apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TURN = 2.0 * np.pi


def nearest_turn(position: Array, reference: Array, continuous: NDArray[np.bool_]) -> Array:
    """`position` [joints], its continuous joints moved by whole turns to nearest `reference`."""
    turns = np.where(continuous, np.rint((reference - position) / TURN), 0.0)
    if not turns.any():
        return position
    return np.asarray(position + TURN * turns)


def unwound(data: Array, reference: Array, continuous: NDArray[np.bool_]) -> Array:
    """Samples [steps, joints] as a motion: its continuous joints without jumps of a turn.

    The first sample comes nearest to `reference` [joints], each other nearest to the one before.
    Samples that need no turn are returned as they are.
    """
    before = np.concatenate((reference[None], data[:-1]))
    turns = np.where(continuous, np.rint((before - data) / TURN), 0.0)
    if not turns.any():
        return data
    return np.asarray(data + TURN * np.cumsum(turns, axis=0))
