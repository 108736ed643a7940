# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which parameters a node has: told apart without rclpy, for those who read its file as well."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from vla_deploy.core.parameter import config_from_mapping, parameter, parameters_of

# rclpy declares these itself.
_OWN = ('use_sim_time', 'start_type_description_service')
_QOS = 'qos_overrides'  # and those below this, for publishers that allow it


@dataclasses.dataclass(frozen=True)
class LifecycleConfig:
    """Parameters that every lifecycle node of this suite has."""

    autostart: bool = parameter(
        False, 'Configure and activate at start; a failure ends the process with exit code 1.'
    )
    autostart_timeout_s: float = parameter(
        10.0,
        'How long autostart waits for what configuring needs, as a robot description.',
        's',
        minimum=0.0,
        maximum=600.0,
    )


def check_known(names: Iterable[str], *config_types: type) -> None:
    """Raise ParameterError naming one that neither the classes nor rclpy declare: a misspelt limit
    must not be ignored."""
    known = {p.name for config_type in config_types for p in parameters_of(config_type)}
    for name in names:
        if name not in known and name not in _OWN and name.partition('.')[0] != _QOS:
            config_from_mapping(_merged(config_types), {name: None})


def _merged(config_types: tuple[type, ...]) -> type:
    """Return a class with the fields of all, so that a suggestion considers each of them."""
    fields = [
        (f.name, f.type, dataclasses.field(default=None, metadata=f.metadata))
        for config_type in config_types
        for f in dataclasses.fields(config_type)
    ]
    return dataclasses.make_dataclass('Parameters', fields)
