# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Whether other limits are nowhere wider than those in force: only such are taken while running."""

from __future__ import annotations

import math

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limits import JointLimit, JointLimits, LimitsError, VelocityEnvelope
from vla_deploy.core.lines import Lines
from vla_deploy.core.workspace_limits import Region, WorkspaceLimits


def acceptable(
    new: JointLimits, old: JointLimits, config: GuardConfig
) -> tuple[JointLimits, Lines]:
    """Return limits with what follows from them; raises LimitsError where they are wider."""
    found = wider(new, old)
    if found:
        raise LimitsError(f'only tighter limits are taken while running: {found}')
    return new, Lines(new, config)


def wider(new: JointLimits, old: JointLimits) -> str:
    """Return the first figure of `new` that allows more than `old`, as one line; empty if none."""
    if new.names != old.names:
        return f'joints are {", ".join(new.names)}, not {", ".join(old.names)}'
    for mine, theirs in zip(new.joints, old.joints, strict=True):
        found = _wider_joint(mine, theirs)
        if found:
            return f'joint_limits.{mine.name}.{found}'
    return _wider_workspace(new.workspace, old.workspace)


def _wider_joint(new: JointLimit, old: JointLimit) -> str:
    if new.kind != old.kind:
        return f'type is {new.kind}, not {old.kind}'
    new_jerk, old_jerk = (math.inf if j.jerk is None else j.jerk for j in (new, old))
    for key, mine, theirs, more in (
        ('position_lower', new.lower, old.lower, new.lower < old.lower),
        ('position_upper', new.upper, old.upper, new.upper > old.upper),
        ('velocity', new.velocity, old.velocity, new.velocity > old.velocity),
        ('acceleration', new.acceleration, old.acceleration, new.acceleration > old.acceleration),
        ('jerk', new_jerk, old_jerk, new_jerk > old_jerk),
    ):
        if more:
            return f'{key} is {mine:g}, wider than {theirs:g}'
    if old.envelope is not None and not _within(new.envelope, old.envelope):
        return 'position_dependent_velocity is wider'
    return 'placeholder was false' if new.placeholder and not old.placeholder else ''


def _within(new: VelocityEnvelope | None, old: VelocityEnvelope) -> bool:
    """Whether one curve lies nowhere above another: it rises with k and falls with c."""
    return new is not None and new.k <= old.k and new.c >= old.c and (
        new.q_lower >= old.q_lower and new.q_upper <= old.q_upper)


def _wider_workspace(new: WorkspaceLimits | None, old: WorkspaceLimits | None) -> str:
    regions = {} if new is None else {region.name: region for region in new.regions}
    for region in () if old is None else old.regions:
        mine = regions.get(region.name)
        if mine is None:
            return f'workspace.{region.name} is missing'
        if not _region_within(mine, region):
            return f'workspace.{region.name} is wider'
    return ''


def _region_within(new: Region, old: Region) -> bool:
    return set(new.links) >= set(old.links) and new.normals == old.normals and all(
        mine >= theirs for mine, theirs in zip(new.offsets, old.offsets, strict=True))
