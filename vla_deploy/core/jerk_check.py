# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The jerk limit, held against a plan: at its knots, and whether a stop from each stays inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.jerk import JerkMotion
from vla_deploy.core.motion_check import Report
from vla_deploy.core.trajectory import NS_TO_S, Trajectory, hermite_coefficients, trajectory_extrema

Array = NDArray[np.float64]


def check_jerk(
    report: Report, knots: Trajectory, bounds: Bounds, motion: JerkMotion, knot_scale: float
) -> None:
    """Report jerk beyond its limit, and knots from which no stop within it stays inside.

    Jerk is checked twice: third differences of the samples against knot_scale times the limit, and
    that of the interpolant, constant between knots, against the limit.
    """
    p, v = knots.position, knots.velocity
    h = (np.diff(knots.times).astype(np.float64) * NS_TO_S)[:, None]
    if len(p) > 3:
        third = np.diff(p, 3, axis=0) / (h[1:-1] ** 3)
        report.add('jerk', np.abs(third), knot_scale * motion.jerk, 2,
                   'jerk {} across samples exceeds {}', '/s^3')
    a0, jerk = hermite_coefficients(p[:-1], p[1:], v[:-1], v[1:], h)
    report.add('jerk', np.abs(jerk), motion.jerk, 0, 'jerk {} exceeds {}', '/s^3')
    if report.found:
        return  # its accelerations say nothing of how it would be followed
    before = np.concatenate((np.zeros_like(p[:1]), a0 + jerk * h))
    excess = _stops(p, v, before, bounds, motion)
    report.add('viability', excess, np.zeros(p.shape[1]), 0,
               'stopping from here with limited jerk passes a bound by {}')


def _stops(p: Array, v: Array, a: Array, bounds: Bounds, motion: JerkMotion) -> Array:
    """How far [knots, joints] a stop from each state (each [knots, joints]) passes a bound.

    Only what a cautious estimate leaves in doubt is computed: no stop goes farther than one that
    keeps its acceleration until deceleration has been built up, and brakes fully then.
    """
    build_up = (np.abs(a) + motion.acceleration) / motion.jerk
    fastest = np.abs(v) + np.abs(a) * build_up
    farthest = fastest * (build_up + fastest / (2.0 * motion.acceleration)) + fastest * (
        motion.acceleration / motion.jerk)
    doubtful = ~((p + farthest <= bounds.upper) & (p - farthest >= bounds.lower)).all(axis=1)
    excess = np.zeros_like(p)
    for i in np.flatnonzero(doubtful):
        reached = trajectory_extrema(motion.stop(0, p[i], v[i], a[i]))
        excess[i] = np.maximum(reached.upper.max(axis=0) - bounds.upper,
                               bounds.lower - reached.lower.min(axis=0))
    return excess
