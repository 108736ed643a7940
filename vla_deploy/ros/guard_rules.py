# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The rules of a robot's guard, read from its parameter file by who is not that guard."""

from __future__ import annotations

from dataclasses import dataclass

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limits import JointLimits
from vla_deploy.core.parameter import ParameterError, config_from_mapping, parameters_of
from vla_deploy.files import read_yaml
from vla_deploy.ros.guard_node_config import GuardNodeConfig
from vla_deploy.ros.lifecycle import ConfigureError


@dataclass(frozen=True)
class GuardRules:
    """config: of the guard's core. enforce_jerk: as its node's parameter."""

    config: GuardConfig
    enforce_jerk: bool

    def in_force(self, limits: JointLimits) -> JointLimits:
        """The limits that such a guard enforces."""
        return limits if self.enforce_jerk else limits.without_jerk()


def guard_rules(path: str) -> GuardRules:
    """Return the rules in a ROS parameter file for all nodes (`/**`); empty path: the defaults.

    Raises FileError, and ConfigureError, which names file and parameter.
    """
    given = read_yaml(path) if path else {'/**': {'ros__parameters': {}}}
    try:
        values = given['/**']['ros__parameters']
        names = {declared.name for declared in parameters_of(GuardConfig)}
        config = config_from_mapping(GuardConfig, {k: v for k, v in values.items() if k in names})
        node = config_from_mapping(
            GuardNodeConfig, {k: v for k, v in values.items() if k == 'enforce_jerk'})
    except ParameterError as error:
        raise ConfigureError(f'{path}: {error}') from error
    except (KeyError, TypeError, AttributeError):
        raise ConfigureError(f"{path}: lacks '/**': 'ros__parameters'") from None
    return GuardRules(config, node.enforce_jerk)
