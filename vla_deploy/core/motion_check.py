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
from vla_deploy.core.trajectory import NS_TO_S, Hull, Trajectory, trajectory_extrema
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
    report = _Report(limits, action, chunk.session_id, chunk.seq)
    scaled_velocity, scaled_acceleration = (
        knot_scale * bounds.velocity, knot_scale * bounds.acceleration)
    # Slowing a plan down keeps its path inside every limit but these.
    alone = '; this joint is projected alone' if action is Action.CLAMPED else ''
    # The largest values [joints] first: a clean plan needs no more. (reduce: less overhead.)
    speed, change = np.abs(asked), np.abs(asked[1:] - asked[:-1])
    lowest, highest = np.minimum.reduce(hull.lower), np.maximum.reduce(hull.upper)
    fastest = np.maximum.reduce(speed)
    inside = (lowest >= bounds.lower) & (highest <= bounds.upper)
    if not inside.all():
        extrema = trajectory_extrema(knots)
        report.add('position', extrema.upper, bounds.upper, 0,
                   'position {} above its bound {}' + alone)
        report.add('position', -extrema.lower, -bounds.lower, 0,
                   'position {} below its bound {}' + alone, sign=-1.0)
    if not (fastest <= scaled_velocity).all():
        report.add('velocity', speed, scaled_velocity, 0,
                   'velocity {} between samples exceeds {}', '/s')
    # The speed at a knot is a mean of slopes; only between knots can it be more than they say.
    fastest = np.maximum(np.maximum.reduce(hull.inner_speed), fastest)
    _check_speed_between(report, knots, fastest, bounds)
    envelope = bounds.envelope
    if envelope is not None and not envelope.clearly_below(
            fastest[None], lowest[None], highest[None]).all():
        p, v = knots.position, knots.velocity
        h = PlanGrid.of(chunk.period_s, *p.shape).intervals
        judged = envelope.judge(p[:-1], p[1:], v[:-1], v[1:], h, hull)
        report.add('velocity', *judged, 0,
                   'velocity {} exceeds {} so near to the end of the range', '/s')
    apart = 1 if len(asked) == len(knots.times) else 2  # knots between two of `asked`, and back
    spans = knots.times[apart:] - knots.times[:-apart]
    to_s = NS_TO_S / apart
    shortest = to_s * float(spans.min()) if len(spans) else 1.0
    if len(spans) and not (np.maximum.reduce(change) <= shortest * scaled_acceleration).all():
        report.add('acceleration', change / (spans[:, None] * to_s),
                   scaled_acceleration, 1, 'acceleration {} across samples exceeds {}', '/s^2')
    if not (np.maximum.reduce(hull.acceleration) <= bounds.acceleration).all():
        report.add('acceleration', hull.acceleration, bounds.acceleration, 0,
                   'acceleration {} exceeds {}', '/s^2')
    stop = fastest * fastest / (2.0 * bounds.acceleration)
    if not ((highest + stop <= bounds.upper) & (lowest - stop >= bounds.lower)).all():
        room = bounds.viability_room(knots.position, knots.velocity)
        report.add('viability', -room, np.zeros(room.shape[1]), 0,
                   'braking from here passes the position bound by {}' + alone)
    return report.found


def _check_speed_between(
    report: _Report, knots: Trajectory, fastest: Array, bounds: Bounds
) -> None:
    """Exact speeds of the joints whose hull, with `fastest` [joints], leaves a doubt."""
    doubtful = ~(fastest <= bounds.velocity) & ~report.told('velocity')
    if not doubtful.any():
        return
    exact = np.zeros((len(knots.times) - 1, len(fastest)))
    few = Trajectory(knots.times, knots.position[:, doubtful], knots.velocity[:, doubtful])
    exact[:, doubtful] = trajectory_extrema(few).speed
    report.add('velocity', exact, bounds.velocity, 0, 'velocity {} exceeds {}', '/s')


class _Report:
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
        beyond = ~(values <= limit)
        if not beyond.any():
            return
        told, joints = self.told(rule), beyond.any(axis=0)
        self._told[rule] = told | joints
        worst = (values - limit).argmax(axis=0).tolist()  # where there is a NaN, that
        for j in np.flatnonzero(joints & ~told).tolist():
            name, i, unit = self._limits.names[j], worst[j], self._limits.units[j] + per
            value = sign * float(values[i, j])
            bound = sign * float(limit[j] if limit.ndim == 1 else limit[i, j])
            told_as = text.format(f'{value:.6g}', f'{bound:.6g} {unit}')
            self.found.append(Violation(
                rule, self._action, f'{name} sample {i + offset}: {told_as}', name, i + offset,
                value, bound, unit, self._session_id, self._seq,
            ))
