# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A robot as its bring-up describes it to the guard: files, joints, parameters, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_deploy.bringup import read_description
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limits import JointLimits, LimitsError, load_limits
from vla_deploy.core.parameter import ParameterError
from vla_deploy.core.urdf import MAX_BYTES, Urdf, UrdfError, parse_urdf
from vla_deploy.files import FileError, read_text, read_yaml
from vla_deploy.ros.guard_rules import guard_rules
from vla_deploy.share import share_directory

ERRORS = (FileError, LimitsError, ParameterError, UrdfError)
"""What `guarded_robot` raises: one line each."""


@dataclass(frozen=True, eq=False)
class GuardedRobot:
    """overlay: the parsed limits file. limits: those that its guard enforces."""

    name: str
    urdf_path: Path
    limits_path: Path
    urdf: Urdf
    overlay: Mapping[str, Any]
    limits: JointLimits
    config: GuardConfig


def guarded_robot(name: str, urdf: Path | None = None) -> GuardedRobot:
    """Read a robot of `config/`; `urdf` takes the place of the description that comes with it."""
    share = share_directory()
    path = share / 'config' / name / 'bringup.yaml'
    if not path.is_file():
        known = sorted(p.parent.name for p in path.parent.parent.glob('*/bringup.yaml'))
        raise ParameterError(f'unknown robot {name!r}; known: {", ".join(known)}')
    description = read_description(path)
    (guard,) = (p for p in description['processes'] if p['executable'] == 'guard')
    rules = guard_rules(share / guard['parameters'])
    urdf_path = share / description['urdf'] if urdf is None else urdf
    limits_path = share / description['limits']
    overlay = read_yaml(limits_path)
    try:
        parsed = parse_urdf(read_text(urdf_path, MAX_BYTES))
    except UrdfError as error:
        raise UrdfError(f'{urdf_path}: {error}') from None
    try:
        limits = rules.in_force(load_limits(parsed, rules.node.joint_names, overlay))
    except LimitsError as error:
        raise LimitsError(f'{limits_path}: {error}') from None
    return GuardedRobot(name, urdf_path, limits_path, parsed, overlay, limits,
                        rules.config)
