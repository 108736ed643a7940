# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Where each limit in force comes from: the URDF, or the overlay and the source that it names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vla_deploy.core.limits import JointLimit
from vla_deploy.core.urdf import UrdfJoint

URDF = 'URDF'


@dataclass(frozen=True)
class LimitFigure:
    """One figure in force; value in `unit`, an infinite one where there is no bound."""

    name: str
    value: float
    unit: str
    source: str


def figures_of(
    limit: JointLimit, joint: UrdfJoint, entry: Mapping[str, Any]
) -> list[LimitFigure]:
    """Return the figures of a joint; `entry` is what the overlay says of it."""
    theirs = {
        'position_lower': (joint.lower, joint.soft_lower, limit.lower),
        'position_upper': (joint.upper, joint.soft_upper, limit.upper),
        'velocity': (joint.velocity, None, limit.velocity),
    }
    per_s = {'velocity': '/s', 'acceleration': '/s^2', 'jerk': '/s^3'}
    figures = []
    for name, (urdf_value, soft_value, value) in theirs.items():
        source = _overlay_source(entry, urdf_value, value)
        if name not in entry:
            soft = soft_value is not None and value == soft_value != urdf_value
            source = f'{URDF} safety_controller' if soft else URDF
            if math.isinf(value):
                source = 'continuous joint: no bound'
        figures.append(LimitFigure(name, value, limit.unit + per_s.get(name, ''), source))
    for name, given in (('acceleration', limit.acceleration), ('jerk', limit.jerk)):
        if given is not None:
            figures.append(LimitFigure(name, given, limit.unit + per_s[name], limit.source))
    if limit.envelope is not None:
        unit = {'k': f'{limit.unit}/s^2', 'c': f'{limit.unit}/s'}
        figures += [
            LimitFigure(f'position_dependent_velocity.{key}', getattr(limit.envelope, key),
                        unit.get(key, limit.unit), limit.source)
            for key in ('k', 'c', 'q_lower', 'q_upper')
        ]
    return figures


def _overlay_source(entry: Mapping[str, Any], urdf_value: float | None, value: float) -> str:
    source = str(entry['source'])
    if urdf_value is None or urdf_value == value:
        return source
    reason = entry.get('allow_widen')
    wider = f'; widens {urdf_value:g} of the URDF: {reason}' if reason else (
        f'; tightens {urdf_value:g} of the URDF')
    return source + wider
