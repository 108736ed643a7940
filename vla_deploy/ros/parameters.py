# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""ROS parameters from the declarations in configuration classes.

A node's parameters are the fields of one or more classes made with `core.parameter`. An override
that no class declares is an error: a misspelt limit must not be ignored.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from vla_deploy.core.parameter import (
    Parameter,
    ParameterError,
    config_from_mapping,
    parameters_of,
)
from vla_deploy.ros.known_parameters import check_known

T = TypeVar('T')

_ROS_TYPE = {
    bool: RosParameter.Type.BOOL,
    int: RosParameter.Type.INTEGER,
    float: RosParameter.Type.DOUBLE,
    str: RosParameter.Type.STRING,
}
_ROS_LIST_TYPE = {
    int: RosParameter.Type.INTEGER_ARRAY,
    float: RosParameter.Type.DOUBLE_ARRAY,
    str: RosParameter.Type.STRING_ARRAY,
}


def declare_parameters(node: Node, *config_types: type) -> None:
    """Declare every parameter of the classes; raise ParameterError naming a bad override."""
    declared = [p for config_type in config_types for p in parameters_of(config_type)]
    check_known(node._parameter_overrides, *config_types)
    for p in declared:
        try:
            node.declare_parameter(p.name, _initial_value(p), _descriptor(p))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            hint = _float_hint(p, node._parameter_overrides)
            raise ParameterError(f'parameter {p.name!r}: {error}{hint}') from error


def read_config(node: Node, config_type: type[T]) -> T:
    """Return the configuration object with the node's present values."""
    values = {}
    for p in parameters_of(config_type):
        # An empty list is declared by its type alone, and has no value until one is given.
        value = node.get_parameter_or(p.name, RosParameter(p.name)).value
        is_list = typing.get_origin(p.python_type) in (list, tuple)
        values[p.name] = list(value or []) if is_list else value
    return config_from_mapping(config_type, values)


def parameters_text(*config_types: type) -> str:
    """Return what `--help` shows: each parameter with its default, unit and description."""
    lines = ['parameters (--ros-args -p name:=value, or --params-file FILE):']
    for p in (p for config_type in config_types for p in parameters_of(config_type)):
        unit = f' [{p.unit}]' if p.unit else ''
        lines.append(f'  {p.name} = {p.default!r}{unit}\n      {p.description}')
    return '\n'.join(lines)


def _float_hint(p: Parameter, overrides: Mapping[str, RosParameter]) -> str:
    """Return how to write a float that was given as a whole number, which ROS does not take."""
    given = overrides[p.name].value if p.name in overrides else None
    if p.python_type is float and type(given) is int:
        return f'; write {float(given)}'
    if p.python_type == list[float] and given and all(type(value) is int for value in given):
        return f'; write {[float(value) for value in given]}'
    return ''


def _initial_value(p: Parameter) -> Any:
    """Return the default; an empty list goes as its type, since rclpy cannot infer one."""
    if typing.get_origin(p.python_type) in (list, tuple) and not p.default:
        return _ROS_LIST_TYPE[typing.get_args(p.python_type)[0]]
    return p.default


def _descriptor(p: Parameter) -> ParameterDescriptor:
    is_list = typing.get_origin(p.python_type) in (list, tuple)
    ros_type = (
        _ROS_LIST_TYPE[typing.get_args(p.python_type)[0]] if is_list else _ROS_TYPE[p.python_type]
    )
    unit = f' [{p.unit}]' if p.unit else ''
    descriptor = ParameterDescriptor(
        name=p.name,
        type=ros_type.value,
        description=f'{p.description}{unit}',
        additional_constraints=f'one of {", ".join(p.choices)}' if p.choices else '',
        read_only=p.read_only,
    )
    if p.minimum is None and p.maximum is None:
        return descriptor
    if p.python_type is float:
        descriptor.floating_point_range = [
            FloatingPointRange(
                from_value=-1e308 if p.minimum is None else float(p.minimum),
                to_value=1e308 if p.maximum is None else float(p.maximum),
            )
        ]
    if p.python_type is int:
        descriptor.integer_range = [
            IntegerRange(
                from_value=-(2**63) if p.minimum is None else int(p.minimum),
                to_value=2**63 - 1 if p.maximum is None else int(p.maximum),
                step=1,
            )
        ]
    return descriptor
