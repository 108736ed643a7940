# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics by damped least squares, joints kept inside their range.

dq = J^T (J J^T + damping^2 I)^-1 e, with e the error of the pose as a twist (Wampler 1986; Nakamura
and Hanafusa 1986). The damping is raised where a step does not bring the link nearer, as by
Levenberg and Marquardt, and so it ends near a singularity and at poses out of reach as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.kinematics import Chain

Array = NDArray[np.float64]

STEPS = 200
"""At most; a sample near the one before takes about five, one beside a singularity a hundred."""
LEAST_DAMPING = 1e-4
MOST_DAMPING = 1e3
CLOSE = 1e-7
"""Error [m, rad] at which a pose counts as reached."""


@dataclass(frozen=True, eq=False)
class Solution:
    """position: joints of the chain. residual_m, residual_rad: what is left to the pose."""

    position: Array
    residual_m: float
    residual_rad: float


def solve(chain: Chain, pose: Array, start: Array, lower: Array, upper: Array) -> Solution:
    """Joints of a chain that bring its tip nearest to a pose [4, 4] in the base frame.

    start: float64 [joints], where to begin; of many solutions the one near it is found. lower,
    upper: the joints' range [joints].
    """
    q = np.clip(start, lower, upper)
    error = pose_error(chain.pose(q), pose)
    damping = LEAST_DAMPING
    for _ in range(STEPS):
        if np.abs(error).max() <= CLOSE or damping > MOST_DAMPING:
            break
        jacobian = chain.jacobian(q)
        # A joint at its end that would go beyond takes no part, so that the others make up for it.
        free = np.ones(len(q), np.bool_)
        for _ in range(2):
            used = jacobian * free
            square = used @ used.T + damping**2 * np.eye(6)
            step = used.T @ np.linalg.solve(square, error)
            free &= ~(((q >= upper) & (step > 0.0)) | ((q <= lower) & (step < 0.0)))
        candidate = np.clip(q + step * free, lower, upper)
        left = pose_error(chain.pose(candidate), pose)
        if left @ left < error @ error:
            q, error = candidate, left
            damping = max(damping * 0.3, LEAST_DAMPING)
        else:
            damping *= 4.0
    return Solution(q, float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:])))


def pose_error(pose: Array, wanted: Array) -> Array:
    """The twist [6] from one pose to another: m along and rad about the base frame's axes."""
    turn = wanted[:3, :3] @ pose[:3, :3].T
    return np.concatenate((wanted[:3, 3] - pose[:3, 3], rotation_vector(turn)))


def rotation_vector(turn: Array) -> Array:
    """Axis times angle [3] of a rotation matrix [3, 3]; the angle is 0 to pi."""
    twice = np.array((turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]))
    sine, cosine = 0.5 * float(np.linalg.norm(twice)), 0.5 * (float(np.trace(turn)) - 1.0)
    angle = float(np.arctan2(sine, cosine))
    if sine > 1e-6:
        return np.asarray(twice * (0.5 * angle / sine))
    if cosine > 0.0:
        return np.asarray(0.5 * twice)
    # Half a turn: the axis from R + I = 2 a a^T.
    column = (turn + np.eye(3))[:, int(np.argmax(np.diag(turn)))]
    return np.asarray(angle * column / np.linalg.norm(column))


def rotation_from_vector(vector: Array) -> Array:
    """Rotation matrix [3, 3] of axis times angle [3], by Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array(((0.0, -z, y), (z, 0.0, -x), (-y, x, 0.0)))
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross))
