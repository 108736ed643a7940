# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The limits on motion, held against a plan: position, velocity, acceleration, viability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.chunk import Chunk
from vla_deploy.core.limits import JointLimits
from vla_deploy.core.plan import PlanGrid
from vla_deploy.core.screen import holds
from vla_deploy.core.trajectory import NS_TO_S, Extrema, Hull, Trajectory, segment_extrema
from vla_deploy.core.violation import Action, Violation

Array = NDArray[np.float64]


def check_motion(
    chunk: Chunk,
    knots: Trajectory,
    asked: Array,
    hull: Hull,
    bounds: Bounds,
    limits: JointLimits,
    knot_scale: float,
    action: Action,
) -> list[Violation]:
    """Worst violation of each rule and joint; empty if the plan may be executed as it is.

    Velocity and acceleration are checked twice: what the samples ask for against knot_scale times
    the limit, and the interpolant at its extrema against the limit. asked: the velocities, float64
    [steps, joints], or finite differences of positions [steps - 1, joints]. The exact extrema are
    computed only where the hull does not already show them inside.
    """
    report = Report(limits, action, chunk.session_id, chunk.seq)
    scaled_velocity, scaled_acceleration = (
        knot_scale * bounds.velocity, knot_scale * bounds.acceleration)
    # Slowing a plan down keeps its path inside every limit but these.
    alone = '; this joint is projected alone' if action is Action.CLAMPED else ''
    speed, change = np.abs(asked), np.abs(asked[1:] - asked[:-1])
    h = PlanGrid.of(chunk.period_s, *knots.position.shape).intervals
    exact = _exact_where_in_doubt(knots, h, hull, bounds)
    report.add('position', exact.upper, bounds.upper, 0, 'position {} above its bound {}' + alone)
    report.add('position', -exact.lower, -bounds.lower, 0,
               'position {} below its bound {}' + alone, sign=-1.0)
    report.add('velocity', speed, scaled_velocity, 0, 'velocity {} between samples exceeds {}',
               '/s')
    # The speed at a knot is a mean of slopes; only between knots can it be more than they say.
    report.add('velocity', exact.speed, bounds.velocity, 0, 'velocity {} exceeds {}', '/s')
    if bounds.envelope is not None:
        p, v = knots.position, knots.velocity
        judged = bounds.envelope.judge(p[:-1], p[1:], v[:-1], v[1:], h, hull,
                                       report.told('velocity'))
        report.add('velocity', *judged, 0,
                   'velocity {} exceeds {} so near to the end of the range', '/s')
    apart = 1 if len(asked) == len(knots.ns) else 2  # knots between two of `asked`, and back
    times = knots.times
    spans = times[apart:] - times[:-apart]
    to_s = NS_TO_S / apart
    change /= spans[:, None] * to_s
    report.add('acceleration', change, scaled_acceleration, 1,
               'acceleration {} across samples exceeds {}', '/s^2')
    report.add('acceleration', hull.acceleration, bounds.acceleration, 0,
               'acceleration {} exceeds {}', '/s^2')
    room = bounds.viability_room(knots.position, knots.velocity)
    report.add('viability', -room, np.zeros(room.shape[1]), 0,
               'braking from here passes the position bound by {}' + alone)
    return report.found


def _exact_where_in_doubt(
    knots: Trajectory, h: Array | float, hull: Hull, bounds: Bounds
) -> Extrema:
    """Exact extrema of the segments whose hull does not show them within the bounds.

    Of all others, values that exceed nothing. Acceleration is left out: the hull has it exactly.
    """
    inside = hull.lower >= bounds.lower
    inside &= hull.upper <= bounds.upper
    inside &= hull.inner_speed <= bounds.velocity
    shape = inside.shape
    lower, upper, speed = np.full(shape, np.inf), np.full(shape, -np.inf), np.zeros(shape)
    if not holds(inside):
        at = np.flatnonzero(~inside)
        p, v = knots.position, knots.velocity
        h = np.broadcast_to(h, shape).take(at)
        exact = segment_extrema(p[:-1].take(at), p[1:].take(at), v[:-1].take(at), v[1:].take(at), h)
        for table, values in ((lower, exact.lower), (upper, exact.upper), (speed, exact.speed)):
            table.put(at, values)
    return Extrema(lower, upper, speed, hull.acceleration)


class Report:
    """Collects the worst excess of each rule and joint, in the order of the checks."""

    def __init__(self, limits: JointLimits, action: Action, session_id: str, seq: int) -> None:
        self.found: list[Violation] = []
        self._limits, self._action = limits, action
        self._session_id, self._seq = session_id, seq
        self._told: dict[str, NDArray[np.bool_]] = {}

    def told(self, rule: str) -> NDArray[np.bool_]:
        """Joints [joints] for which the rule has been reported."""
        return self._told.get(rule, np.zeros(len(self._limits.names), np.bool_))

    def add(self, rule: str, values: Array, limit: Array, offset: int, text: str,
            per: str = '', sign: float = 1.0) -> None:
        within = values <= limit
        if holds(within):
            return
        told, joints = self.told(rule), ~np.logical_and.reduce(within)
        self._told[rule] = told | joints
        excess = values - limit
        for j in np.flatnonzero(joints & ~told).tolist():
            i = int(excess[:, j].argmax())  # where there is a NaN, that
            name, unit = self._limits.names[j], self._limits.units[j] + per
            value = sign * float(values[i, j])
            bound = sign * float(limit[j] if limit.ndim == 1 else limit[i, j])
            told_as = text.format(f'{value:.6g}', f'{bound:.6g} {unit}')
            self.found.append(Violation(
                rule, self._action, f'{name} sample {i + offset}: {told_as}', name, i + offset,
                value, bound, unit, self._session_id, self._seq,
            ))
