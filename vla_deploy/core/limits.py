# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Limits in force: the URDF, tightened by an overlay that says where each figure comes from.

Overlay, as parsed from `config/<robot>/joint_limits.yaml`:

    units: {angle: rad, length: m, time: s}
    joint_limits:
      fr3_joint1:
        velocity: 2.62            # may only tighten the URDF, as position_lower, position_upper
        acceleration: 10.0        # required: a URDF has none
        jerk: 5000.0              # optional
        source: 'where the figures were published'
        placeholder: false        # required; true: not a rating, see accept_placeholder_limits
        allow_widen: 'reason'     # optional: lets this joint's figures exceed the URDF
        position_dependent_velocity: {k: 12.0, c: 0.30, q_lower: -2.7501, q_upper: 2.7501}
    workspace: ...                # optional: where links may be (core/workspace_limits.py)
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.urdf import Urdf, UrdfJoint
from vla_deploy.core.workspace_limits import WorkspaceError, WorkspaceLimits, read_workspace

Array = NDArray[np.float64]

UNITS = {'angle': 'rad', 'length': 'm', 'time': 's'}
FIGURES = ('position_lower', 'position_upper', 'velocity', 'acceleration', 'jerk')
ENVELOPE_KEYS = ('k', 'c', 'q_lower', 'q_upper')
JOINT_KEYS = (*FIGURES, 'source', 'placeholder', 'allow_widen', 'position_dependent_velocity')


class LimitsError(ValueError):
    """A limit is missing or wrong; one line that names joint and key."""


@dataclass(frozen=True)
class VelocityEnvelope:
    """v <= -c + sqrt(k (q_upper - q)), mirrored toward q_lower; as libfranka publishes it."""

    k: float
    c: float
    q_lower: float
    q_upper: float


@dataclass(frozen=True)
class JointLimit:
    """Limits of one joint in SI units; lower and upper are infinite where there is no bound."""

    name: str
    kind: str
    lower: float
    upper: float
    velocity: float
    acceleration: float
    jerk: float | None
    effort: float | None
    source: str
    placeholder: bool
    envelope: VelocityEnvelope | None = None

    @property
    def unit(self) -> str:
        """Unit of the position."""
        return 'm' if self.kind == 'prismatic' else 'rad'


@dataclass(frozen=True, eq=False)
class JointLimits:
    """Limits of the guarded joints in declared order; arrays are float64 [joints].

    jerk: infinite for a joint without a limit, None if no joint has one.

    `notes` are lines for the log: what was tightened or widened and why, which figures are
    placeholders. `sha256` is the digest of the figures in force.
    """

    joints: tuple[JointLimit, ...]
    notes: tuple[str, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    lower: Array
    upper: Array
    has_position: NDArray[np.bool_]
    velocity: Array
    acceleration: Array
    jerk: Array | None
    sha256: str
    workspace: WorkspaceLimits | None = None

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Names of the joints whose figures are placeholders."""
        return tuple(j.name for j in self.joints if j.placeholder)

    def among(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Which joints are named, bool [joints]; raises LimitsError for one that is not here."""
        for name in names:
            if name not in self.names:
                raise LimitsError(f'joint {name!r} is not under guard')
        return np.array([name in names for name in self.names])

    @property
    def continuous(self) -> NDArray[np.bool_] | None:
        """Which joints turn without end, bool [joints]; None if no joint does."""
        return None if self.has_position.all() else ~self.has_position

    @staticmethod
    def of(
        joints: Sequence[JointLimit], notes: Sequence[str] = (),
        workspace: WorkspaceLimits | None = None,
    ) -> JointLimits:
        """Gather single limits into arrays; checks nothing."""
        lower = np.array([j.lower for j in joints])
        upper = np.array([j.upper for j in joints])
        return JointLimits(
            joints=tuple(joints),
            notes=tuple(notes),
            names=tuple(j.name for j in joints),
            units=tuple(j.unit for j in joints),
            lower=lower,
            upper=upper,
            has_position=np.isfinite(lower),
            velocity=np.array([j.velocity for j in joints]),
            acceleration=np.array([j.acceleration for j in joints]),
            jerk=None if all(j.jerk is None for j in joints) else np.array(
                [math.inf if j.jerk is None else j.jerk for j in joints]),
            sha256=_digest(joints, workspace),
            workspace=workspace,
        )

    def without_jerk(self) -> JointLimits:
        """The same limits but those on jerk; a note names what was left out."""
        named = [f'{j.name} {j.jerk:g}' for j in self.joints if j.jerk is not None]
        if not named:
            return self
        note = f'jerk limits are recorded, not enforced (enforce_jerk): {", ".join(named)}'
        joints = [replace(joint, jerk=None) for joint in self.joints]
        return JointLimits.of(joints, (*self.notes, note), self.workspace)


def _digest(joints: Sequence[JointLimit], workspace: WorkspaceLimits | None) -> str:
    figures: list[Any] = [
        [j.name, j.kind, repr(j.lower), repr(j.upper), j.velocity, j.acceleration, j.jerk, j.effort]
        + ([] if j.envelope is None else [j.envelope.k, j.envelope.c, j.envelope.q_lower,
                                          j.envelope.q_upper])
        for j in joints
    ]
    if workspace is not None:
        figures += [[r.name, r.links, r.normals, r.offsets] for r in workspace.regions]
    return hashlib.sha256(json.dumps(figures, separators=(',', ':')).encode()).hexdigest()


def load_limits(urdf: Urdf, joint_order: Sequence[str], overlay: Mapping[str, Any]) -> JointLimits:
    """Limits of the joints in `joint_order` from the URDF and the parsed overlay.

    Raises LimitsError naming the joint and key for anything missing, unknown, not finite,
    inverted, zero or wider than the URDF without a reason.
    """
    entries = _overlay_entries(overlay, urdf)
    if not joint_order:
        raise LimitsError('no joints are declared')
    if len(set(joint_order)) != len(joint_order):
        raise LimitsError(f'joints are declared twice in {list(joint_order)}')
    notes: list[str] = []
    limits = []
    for name in joint_order:
        if name not in urdf.joints:
            raise LimitsError(f'joint {name!r} is not in the robot description{_near(name, urdf)}')
        joint = urdf.joints[name]
        if joint.mimics is not None or joint.kind in ('fixed', 'floating', 'planar'):
            what = f'mimics {joint.mimics!r}' if joint.mimics else f'is {joint.kind}'
            raise LimitsError(f'joint {name!r} {what} and may not be commanded')
        if name not in entries:
            raise LimitsError(f'joint_limits.{name} is missing: acceleration and source needed')
        limits.append(_joint_limit(joint, entries[name], notes))
    return JointLimits.of(limits, notes, _workspace(overlay, urdf))


def tighten(limits: JointLimits, description: Urdf) -> JointLimits:
    """Limits with every figure not wider than the robot's own description; each change is noted."""
    notes = list(limits.notes)
    tightened = []
    for limit in limits.joints:
        other = description.joints.get(limit.name)
        if other is None:
            raise LimitsError(f'joint {limit.name!r} is not in the robot description')
        if other.kind != limit.kind:
            raise LimitsError(f'joint {limit.name!r} is {other.kind} in the robot description, '
                              f'{limit.kind} in ours')
        lower, upper = _urdf_bounds(other)
        changes: dict[str, float] = {}
        if lower > limit.lower:
            changes['lower'] = lower
        if upper < limit.upper:
            changes['upper'] = upper
        if other.velocity is not None and other.velocity < limit.velocity:
            changes['velocity'] = other.velocity
        notes += [f'{limit.name}: {key} {getattr(limit, key):g} tightened to {value:g} by the '
                  'robot description' for key, value in changes.items()]
        changed = replace(limit, **changes)  # type: ignore[arg-type]
        _check(changed)
        tightened.append(changed)
    return JointLimits.of(tightened, notes, limits.workspace)


def _workspace(overlay: Mapping[str, Any], urdf: Urdf) -> WorkspaceLimits | None:
    if 'workspace' not in overlay:
        return None
    try:
        return read_workspace(overlay['workspace'], urdf, _known)
    except WorkspaceError as error:
        raise LimitsError(str(error)) from error


def _overlay_entries(overlay: Mapping[str, Any], urdf: Urdf) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(overlay, Mapping):
        raise LimitsError(f'joint limits must be a mapping, not {type(overlay).__name__}')
    _known(overlay, ('units', 'joint_limits', 'workspace'), '')
    if overlay.get('units') != UNITS:
        raise LimitsError(f'units must be {UNITS}, not {overlay.get("units")!r}')
    entries = overlay.get('joint_limits')
    if not isinstance(entries, Mapping) or not entries:
        raise LimitsError('joint_limits is missing or not a mapping of joint names')
    for name, entry in entries.items():
        if name not in urdf.joints:
            raise LimitsError(f'joint_limits.{name}: no such joint in the robot description'
                              f'{_near(str(name), urdf)}')
        if not isinstance(entry, Mapping):
            raise LimitsError(f'joint_limits.{name} must be a mapping, not {entry!r}')
        _known(entry, JOINT_KEYS, f'joint_limits.{name}.')
    return entries


def _joint_limit(joint: UrdfJoint, entry: Mapping[str, Any], notes: list[str]) -> JointLimit:
    where = f'joint_limits.{joint.name}'
    figures = {key: _figure(entry, key, where) for key in FIGURES}
    source, placeholder = entry.get('source'), entry.get('placeholder')
    if not isinstance(source, str) or not source.strip():
        raise LimitsError(f'{where}.source must say where the figures come from')
    if not isinstance(placeholder, bool):
        raise LimitsError(f'{where}.placeholder must be true or false, not {placeholder!r}')
    reason = entry.get('allow_widen')
    if 'allow_widen' in entry and (not isinstance(reason, str) or not reason.strip()):
        raise LimitsError(f'{where}.allow_widen must give the reason as text')
    if figures['acceleration'] is None:
        raise LimitsError(f'{where}.acceleration is missing')
    if joint.kind == 'continuous' and (figures['position_lower'], figures['position_upper']) != (
        None, None,
    ):
        raise LimitsError(f'{where}.position_lower/upper: a continuous joint has no bounds')
    lower, upper = _urdf_bounds(joint)
    velocity = math.inf if joint.velocity is None else joint.velocity

    def choose(key: str, theirs: float, widens: bool) -> float:
        ours = figures[key]
        if ours is None:
            return theirs
        if widens and reason is None:
            raise LimitsError(f'{where}.{key} is {ours:g}, wider than {theirs:g} in the robot '
                              'description; allow_widen must give a reason')
        if ours != theirs and math.isfinite(theirs):
            verb = f'widened ({reason})' if widens else 'tightened'
            notes.append(f'{joint.name}: {key} {theirs:g} {verb} to {ours:g}')
        return ours

    ours_lower, ours_upper = figures['position_lower'], figures['position_upper']
    ours_velocity = figures['velocity']
    limit = JointLimit(
        name=joint.name,
        kind=joint.kind,
        lower=choose('position_lower', lower, ours_lower is not None and ours_lower < lower),
        upper=choose('position_upper', upper, ours_upper is not None and ours_upper > upper),
        velocity=choose('velocity', velocity, ours_velocity is not None
                        and ours_velocity > velocity),
        acceleration=figures['acceleration'],
        jerk=figures['jerk'],
        effort=joint.effort,
        source=source,
        placeholder=placeholder,
        envelope=_envelope(entry, where),
    )
    _check(limit)
    if placeholder:
        notes.append(f'{joint.name}: limits are a placeholder ({source})')
    return limit


def _urdf_bounds(joint: UrdfJoint) -> tuple[float, float]:
    """Position bounds, the safety controller's soft ones included."""
    if joint.kind == 'continuous':
        return -math.inf, math.inf
    lower = -math.inf if joint.lower is None else joint.lower
    upper = math.inf if joint.upper is None else joint.upper
    if joint.soft_lower is not None:
        lower = max(lower, joint.soft_lower)
    if joint.soft_upper is not None:
        upper = min(upper, joint.soft_upper)
    return lower, upper


def _check(limit: JointLimit) -> None:
    if limit.kind != 'continuous' and not limit.lower < limit.upper:
        raise LimitsError(f'joint {limit.name!r}: lower {limit.lower:g} is not below upper '
                          f'{limit.upper:g}')
    if not math.isfinite(limit.velocity):
        raise LimitsError(f'joint {limit.name!r}: velocity limit is missing')
    if limit.envelope is not None:
        _check_envelope(limit, limit.envelope)
    for key in ('velocity', 'acceleration', 'jerk'):
        value = getattr(limit, key)
        if value is not None and value <= 0.0:
            raise LimitsError(f'joint {limit.name!r}: {key} limit is {value:g}, not above 0')


def _check_envelope(limit: JointLimit, envelope: VelocityEnvelope) -> None:
    """At q_upper - c^2 / k the speed toward q_upper has fallen to 0; nothing lies beyond."""
    lost = envelope.c * envelope.c / envelope.k
    lower = max(limit.lower, envelope.q_lower + lost)
    upper = min(limit.upper, envelope.q_upper - lost)
    if not lower < upper:
        raise LimitsError(f'joint {limit.name!r}: position_dependent_velocity leaves no range: '
                          f'{lower:g} is not below {upper:g}')


def _envelope(entry: Mapping[str, Any], where: str) -> VelocityEnvelope | None:
    key = 'position_dependent_velocity'
    if key not in entry:
        return None
    where = f'{where}.{key}'
    if not isinstance(entry[key], Mapping):
        raise LimitsError(f'{where} must be a mapping of {", ".join(ENVELOPE_KEYS)}')
    _known(entry[key], ENVELOPE_KEYS, f'{where}.')
    values = {k: _figure(entry[key], k, where) for k in ENVELOPE_KEYS}
    for k, value in values.items():
        if value is None:
            raise LimitsError(f'{where}.{k} is missing')
    envelope = VelocityEnvelope(**values)  # type: ignore[arg-type]
    if envelope.k <= 0.0 or envelope.c < 0.0 or envelope.q_lower >= envelope.q_upper:
        raise LimitsError(f'{where} needs k > 0, c >= 0 and q_lower < q_upper')
    return envelope


def _figure(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    if key not in entry:
        return None
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise LimitsError(f'{where}.{key} must be a number, not {value!r}')
    if not math.isfinite(value):
        raise LimitsError(f'{where}.{key} must be finite, not {value!r}')
    return float(value)


def _known(mapping: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in mapping:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            hint = f'; did you mean {near[0]!r}?' if near else ''
            raise LimitsError(f'unknown key {where}{key}{hint}')


def _near(name: str, urdf: Urdf) -> str:
    near = difflib.get_close_matches(name, list(urdf.joints), n=1)
    return f'; did you mean {near[0]!r}?' if near else ''
