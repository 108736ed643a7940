# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Judge one chunk: a pure function of the chunk, the state, the limits and the configuration.

Stages, in order; the first that finds something ends the judgement, except that all the limits
on motion are reported together:

1. schema, session, sequence, time to live
2. joint names, dimensions, finite values, period, control mode
3. age of the observation and of the joint state
4. start jump against the commanded and the measured position; a plan of velocities begins where
   the robot is, and its speed is approached within the limits
5. position, velocity, acceleration, viability; jerk, where it has limits
6. workspace, which no clamping mends: a plan that leaves it, or would while braking, is refused
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.angles import unwound
from vla_deploy.core.bounds import GRID_S, Bounds
from vla_deploy.core.chunk import SCHEMA_VERSION, Chunk, ControlMode
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.jerk import JerkMotion
from vla_deploy.core.jerk_check import check_jerk
from vla_deploy.core.limits import JointLimits
from vla_deploy.core.motion_check import Report, check_motion
from vla_deploy.core.pace import pace
from vla_deploy.core.plan import Plan, PlanGrid, interpolant
from vla_deploy.core.schedule import SessionBook
from vla_deploy.core.screen import Screen, holds
from vla_deploy.core.trajectory import NS_TO_S, Hull, Trajectory, segment_hull
from vla_deploy.core.velocity_plan import integrated, slowed
from vla_deploy.core.violation import Action, Violation
from vla_deploy.core.workspace import Workspace

Array = NDArray[np.float64]

CONTROL_MODES = {'position': ControlMode.POSITION, 'velocity': ControlMode.VELOCITY}
MAX_PERIOD_S = 10.0
MAX_TIME_NS = 2**62


@dataclass(frozen=True, eq=False)
class VerifyState:
    """What a chunk is held against; positions float64 [joints] in the order of the limits.

    commanded_position: commanded at splice_ns, the earliest time the chunk can take effect; None
    before anything was commanded. measured_position: newest measurement, at measured_ns.
    """

    now_ns: int
    splice_ns: int
    sessions: SessionBook
    commanded_position: Array | None
    measured_position: Array | None
    measured_ns: int


@dataclass(frozen=True, eq=False)
class VerifyReport:
    """verdict: accepted, clamped or refused; plan: what to execute, None when refused.

    A clamped plan holds the samples with their positions inside the bounds, or their velocities
    within the limits. It is a target for the limiter: following it directly may still exceed more.
    """

    verdict: str
    violations: tuple[Violation, ...]
    plan: Plan | None

    def as_refused(self) -> VerifyReport:
        """The same findings, but nothing to execute."""
        named = tuple(replace(v, action=Action.REFUSED) for v in self.violations)
        return VerifyReport('refused', named, None)


def verify_chunk(
    chunk: Chunk, state: VerifyState, limits: JointLimits, config: GuardConfig
) -> tuple[Chunk | None, VerifyReport]:
    """Return the chunk in the joint order of `limits` (None when refused) and the report."""
    data: Array = np.empty((0, 0))
    found = _check_identity(chunk, state)
    if not found:
        found = _check_structure(chunk, limits, config)
    if not found:
        data = _in_joint_order(chunk, limits)
        found = _check_finite(data, limits)
    if not found:
        found = _check_ages(chunk, state, config)
    if found:
        return _refuse(chunk, found)

    # Extreme samples may overflow here; no comparison below lets what is not finite pass.
    with np.errstate(over='ignore', invalid='ignore'):
        return _check_plan(chunk, data, state, limits, config)


def _check_plan(
    chunk: Chunk, data: Array, state: VerifyState, limits: JointLimits, config: GuardConfig
) -> tuple[Chunk | None, VerifyReport]:
    """Stages 4 and 5, on the plan itself; data: float64 [steps, joints] in order."""
    in_velocity = config.control_mode == 'velocity'
    if not in_velocity and limits.continuous is not None:
        data = unwound(data, _start(state)[0], limits.continuous)
    grid = PlanGrid.of(chunk.period_s, *data.shape)

    def motion(samples: Array) -> Trajectory:
        if in_velocity:
            return integrated(grid.offsets + chunk.stamp_ns, samples, *_start(state))
        return interpolant(chunk.stamp_ns, chunk.period_s, samples)

    knots = motion(data)
    p, v, h = knots.position, knots.velocity, grid.intervals
    slope = (p[1:] - p[:-1]) / h
    hull = segment_hull(p[:-1], p[1:], v[:-1], v[1:], slope, h)
    found = [] if in_velocity else _check_start_jump(knots, hull, state, limits, config)
    if found:
        return _refuse(chunk, found)
    bounds = Bounds.of(limits, config.soft_margin)
    action = Action.CLAMPED if config.mode == 'clamp' else Action.REFUSED
    asked = data if in_velocity else slope
    if not Screen.of(bounds, config.knot_scale, grid).passes(knots, asked, hull):
        found = check_motion(chunk, knots, asked, hull, bounds, limits, config.knot_scale, action)
    if not found and (smooth := JerkMotion.of(limits, bounds)) is not None:
        report = Report(limits, action, chunk.session_id, chunk.seq)
        check_jerk(report, knots, bounds, smooth, config.knot_scale)
        found = report.found
    if found and action is Action.REFUSED:
        return _refuse(chunk, [*found, *_check_workspace(knots, limits, bounds, state)])
    if found:
        data = slowed(data, bounds.velocity) if in_velocity else np.clip(
            data, bounds.lower, bounds.upper)
        knots = motion(data)
    # How a clamped plan is followed is judged step by step (core/command.py).
    outside = _check_workspace(knots, limits, None if found else bounds, state)
    if outside:
        return _refuse(chunk, [*found, *outside])
    ordered = chunk
    if data is not chunk.data:
        ordered = replace(chunk, joint_names=limits.names, data=data)
    plan = Plan(chunk.session_id, chunk.seq, knots, hull)
    if found:
        plan = replace(plan, hull=None, pace=pace(knots, bounds))
    return ordered, VerifyReport('clamped' if found else 'accepted', tuple(found), plan)


def _check_workspace(
    knots: Trajectory, limits: JointLimits, bounds: Bounds | None, state: VerifyState
) -> list[Violation]:
    """What is left of the plan, and with bounds given braking from each of its knots, against the
    workspace."""
    workspace = Workspace.of(limits)
    if workspace is None:
        return []
    begin = max(knots.segment_at(state.splice_ns), 0)
    tails = None if bounds is None else bounds.acceleration
    breach = workspace.breach(knots.knots(begin), tails, _start(state)[0])
    if breach is None:
        return []
    sample = begin + breach.knot
    return [_refusal('workspace', f'sample {sample}: {breach}', breach.distance, 0.0, 'm',
                     breach.link, sample)]


def _start(state: VerifyState) -> tuple[Array, int]:
    """Where the robot is when a plan can take effect, as far as is known, and that time."""
    if state.commanded_position is not None:
        return state.commanded_position, state.splice_ns
    assert state.measured_position is not None  # else the ages were refused
    return state.measured_position, state.measured_ns


def _refuse(chunk: Chunk, found: Sequence[Violation]) -> tuple[None, VerifyReport]:
    named = tuple(replace(v, session_id=chunk.session_id, seq=chunk.seq) for v in found)
    return None, VerifyReport('refused', named, None)


def _refusal(rule: str, message: str, value: float = 0.0, limit: float = 0.0, unit: str = '1',
             joint: str = '', sample: int = -1) -> Violation:
    return Violation(rule, Action.REFUSED, message, joint, sample, value, limit, unit)


def _check_identity(chunk: Chunk, state: VerifyState) -> list[Violation]:
    if chunk.schema_version != SCHEMA_VERSION:
        return [_refusal('schema', f'schema_version is {chunk.schema_version}, not '
                         f'{SCHEMA_VERSION}', chunk.schema_version, SCHEMA_VERSION)]
    rule, message = state.sessions.refusal(chunk.session_id, chunk.seq)
    if rule:
        return [_refusal(rule, message, chunk.seq, max(state.sessions.seq, 0))]
    if state.now_ns > chunk.valid_until_ns:
        late = _seconds(state.now_ns - chunk.valid_until_ns)
        return [_refusal('ttl', f'chunk came {late:.3f} s after valid_until', late, 0.0, 's')]
    return []


def _check_structure(
    chunk: Chunk, limits: JointLimits, config: GuardConfig
) -> list[Violation]:
    names, data = chunk.joint_names, chunk.data
    if names != limits.names:
        missing = [name for name in limits.names if name not in names]
        if missing:
            return [_refusal('joint_names', f'chunk lacks joint {name!r}', joint=name)
                    for name in missing]
        twice = sorted({name for name in limits.names if names.count(name) > 1})
        if twice:
            return [_refusal('joint_names', f'chunk names joint {name!r} twice', joint=name)
                    for name in twice]
    if data.ndim != 2 or data.shape[1] != len(names) or data.dtype != np.float64:
        return [_refusal('dims', f'data are {data.dtype} {list(data.shape)}, not float64 '
                         f'[steps, {len(names)}]')]
    steps = len(data)
    if not 2 <= steps <= config.max_chunk_steps:
        return [_refusal('dims', f'chunk has {steps} samples, not 2 to {config.max_chunk_steps}',
                         steps, config.max_chunk_steps)]
    if not GRID_S <= chunk.period_s <= MAX_PERIOD_S:
        return [_refusal('period', f'period is {chunk.period_s!r} s, not {GRID_S:g} to '
                         f'{MAX_PERIOD_S:g} s', chunk.period_s, GRID_S, 's')]
    if not 0 <= chunk.stamp_ns <= MAX_TIME_NS:
        return [_refusal('stamp', f'stamp {chunk.stamp_ns} ns is not a time')]
    expected = CONTROL_MODES[config.control_mode]
    if chunk.control_mode != expected:
        return [_refusal('control_mode', f'control mode is {chunk.control_mode}, not '
                         f'{int(expected)} ({config.control_mode})', chunk.control_mode, expected)]
    return []


def _in_joint_order(chunk: Chunk, limits: JointLimits) -> Array:
    if chunk.joint_names == limits.names:
        return chunk.data
    columns = [chunk.joint_names.index(name) for name in limits.names]
    return np.ascontiguousarray(chunk.data[:, columns])


def _check_finite(data: Array, limits: JointLimits) -> list[Violation]:
    finite = np.isfinite(data)
    if holds(finite):
        return []
    found, bad = [], ~finite
    for j in np.flatnonzero(bad.any(axis=0)):
        i = int(bad[:, j].argmax())
        found.append(_refusal('finite', f'{limits.names[j]} is {data[i, j]} at sample {i}',
                              float(data[i, j]), 0.0, limits.units[j], limits.names[j], i))
    return found


def _check_ages(chunk: Chunk, state: VerifyState, config: GuardConfig) -> list[Violation]:
    age = _seconds(state.now_ns - chunk.observation_stamp_ns)
    if age > config.max_observation_age_s:
        return [_refusal('observation_age', f'observation is {age:.3f} s old', age,
                         config.max_observation_age_s, 's')]
    if age < -config.clock_tolerance_s:
        return [_refusal('observation_age', f'observation lies {-age:.3f} s in the future', age,
                         -config.clock_tolerance_s, 's')]
    ahead = _seconds(chunk.stamp_ns - state.now_ns)
    if ahead > config.max_chunk_ahead_s:
        return [_refusal('ahead', f'chunk begins {ahead:.3f} s ahead', ahead,
                         config.max_chunk_ahead_s, 's')]
    end = chunk.stamp_ns + round((len(chunk.data) - 1) * (chunk.period_s * 1e9))
    if end <= state.splice_ns:
        late = _seconds(state.splice_ns - end)
        return [_refusal('ttl', f'every sample has passed; the last by {late:.3f} s', late, 0.0,
                         's')]
    if state.measured_position is None:
        return [_refusal('joint_state_age', 'there is no fresh joint state')]
    measured_age = _seconds(state.now_ns - state.measured_ns)
    if measured_age > config.joint_state_timeout_s:
        return [_refusal('joint_state_age', f'joint state is {measured_age:.3f} s old',
                         measured_age, config.joint_state_timeout_s, 's')]
    return []


def _check_start_jump(
    knots: Trajectory, hull: Hull, state: VerifyState, limits: JointLimits, config: GuardConfig
) -> list[Violation]:
    found: list[Violation] = []
    for what, position, t_ns in (
        ('commanded', state.commanded_position, state.splice_ns),
        ('measured', state.measured_position, state.measured_ns),
    ):
        if position is None:
            continue
        if what == 'measured' and config.gripper_joints:
            at_ns = min(max(t_ns, knots.start_ns), knots.end_ns)
            position = np.where(limits.among(config.gripper_joints), knots.place(at_ns), position)
        # The hull of the segment mostly shows it; a hair of room for its rounding.
        i = min(max(knots.segment_at(t_ns), 0), len(hull.lower) - 1)
        farthest = np.maximum(hull.upper[i] - position, position - hull.lower[i])
        if holds(farthest <= config.start_jump * (1.0 - 1e-9)):
            continue
        planned = knots.place(min(max(t_ns, knots.start_ns), knots.end_ns))
        jump = np.abs(planned - position)
        if (jump <= config.start_jump).all():
            continue
        sample = max(0, knots.segment_at(t_ns))
        found += [
            _refusal(
                'start_jump',
                f'plan starts {jump[j]:.4g} {limits.units[j]} from the {what} position of '
                f'{limits.names[j]}', float(jump[j]), config.start_jump, limits.units[j],
                limits.names[j], sample,
            )
            for j in np.flatnonzero(~(jump <= config.start_jump))
        ]
    return found


def _seconds(ns: int) -> float:
    return ns * NS_TO_S
