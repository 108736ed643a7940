# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters declared once: name, type, default, unit, bounds and description in one place.

A configuration is a frozen dataclass whose fields are made by `parameter`. The ROS parameter
descriptors, the YAML defaults and the tables in the documentation are all derived from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar('T')


class ParameterError(ValueError):
    """A parameter is unknown, of another type, or out of its bounds; the message names it."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One declared parameter; `python_type` is bool, int, float, str or list[str] / list[float]."""

    name: str
    python_type: Any
    default: Any
    unit: str
    description: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    read_only: bool


def parameter(
    default: Any,
    description: str,
    unit: str = '',
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = True,
) -> Any:
    """Return a dataclass field that carries its declaration; bounds are inclusive."""
    metadata = {
        'description': description,
        'unit': unit,
        'minimum': minimum,
        'maximum': maximum,
        'choices': choices,
        'read_only': read_only,
    }
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parameters_of(config_type: type) -> list[Parameter]:
    """Return the declared parameters of a configuration class, in order of declaration."""
    hints = typing.get_type_hints(config_type)
    declared = []
    for field in dataclasses.fields(config_type):
        default = field.default
        if default is dataclasses.MISSING:
            if field.default_factory is dataclasses.MISSING:
                raise TypeError(f'{config_type.__name__}.{field.name} has no default')
            default = field.default_factory()
        declared.append(
            Parameter(field.name, hints[field.name], default, **dict(field.metadata))
        )
    return declared


def config_from_mapping(config_type: type[T], values: Mapping[str, Any]) -> T:
    """Build a configuration from parsed values; absent keys keep their defaults.

    Raises ParameterError for an unknown key (the nearest known one is suggested), a value of
    another type, one that is not finite, or one out of bounds.
    """
    declared = {p.name: p for p in parameters_of(config_type)}
    for key in values:
        if key not in declared:
            near = difflib.get_close_matches(key, declared, n=1)
            hint = f'; did you mean {near[0]!r}?' if near else ''
            raise ParameterError(f'unknown parameter {key!r}{hint}')
    checked = {key: check_value(declared[key], value) for key, value in values.items()}
    return config_type(**checked)


def check_value(declared: Parameter, value: Any) -> Any:
    """Return the value in the declared type, or raise ParameterError naming the parameter."""
    name, kind = declared.name, declared.python_type
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if typing.get_origin(kind) in (list, tuple):
        item = typing.get_args(kind)[0]
        if not isinstance(value, (list, tuple)):
            raise ParameterError(f'{name} must be a list, not {value!r}')
        value = [float(v) if item is float and isinstance(v, int) else v for v in value]
        if any(not isinstance(v, item) for v in value):
            raise ParameterError(f'{name} must hold only {item.__name__}, not {value!r}')
        return value
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ParameterError(f'{name} must be {kind.__name__}, not {value!r}')
    if kind is float and not math.isfinite(value):
        raise ParameterError(f'{name} must be finite, not {value!r}')
    if declared.minimum is not None and value < declared.minimum:
        raise ParameterError(f'{name} is {value!r}, below its minimum {declared.minimum}')
    if declared.maximum is not None and value > declared.maximum:
        raise ParameterError(f'{name} is {value!r}, above its maximum {declared.maximum}')
    if declared.choices and value not in declared.choices:
        raise ParameterError(f'{name} is {value!r}, not one of {", ".join(declared.choices)}')
    return value
