# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The rules of a robot's guard, read from its parameter file by who is not that guard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from vla_deploy.core.audit_config import AuditConfig
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limits import JointLimits
from vla_deploy.core.parameter import ParameterError, config_from_mapping, parameters_of
from vla_deploy.files import read_yaml
from vla_deploy.ros.guard_node_config import GuardNodeConfig
from vla_deploy.ros.known_parameters import LifecycleConfig, check_known

Config = TypeVar('Config')


@dataclass(frozen=True)
class GuardRules:
    """config: of the guard's core. node: of its node."""

    config: GuardConfig
    node: GuardNodeConfig

    def in_force(self, limits: JointLimits) -> JointLimits:
        """The limits that such a guard enforces."""
        return limits if self.node.enforce_jerk else limits.without_jerk()


def guard_rules(path: str | os.PathLike[str]) -> GuardRules:
    """Return the rules in a ROS parameter file for all nodes (`/**`); empty path: the defaults.

    Raises FileError, and ParameterError, which names file and parameter.
    """
    try:
        values = _parameters(read_yaml(path)) if path else {}
        # As the guard itself does: what it would refuse must not pass for a rule.
        check_known(values, LifecycleConfig, GuardNodeConfig, GuardConfig, AuditConfig)
        return GuardRules(_part(GuardConfig, values), _part(GuardNodeConfig, values))
    except ParameterError as error:
        raise ParameterError(f'{path}: {error}') from error


def _parameters(given: Any) -> Mapping[str, Any]:
    values = given
    for key in ('/**', 'ros__parameters'):
        values = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping):
        raise ParameterError("lacks '/**': 'ros__parameters'")
    return values


def _part(config_type: type[Config], values: Mapping[str, Any]) -> Config:
    names = {declared.name for declared in parameters_of(config_type)}
    return config_from_mapping(config_type, {k: v for k, v in values.items() if k in names})
