# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Nested frozen dataclasses from parsed files, and back, with no key left over or left out.

The annotations are the schema: bool, int, float, str, tuple[T, ...], T | None, and dataclasses of
these. Every error is one line that names the key by its path, such as `action.joints[2]`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar('T')


class SchemaError(ValueError):
    """A key is unknown or missing, or its value is of another type; the message names it."""


def from_mapping(kind: type[T], values: object, path: str = '') -> T:
    """Build the dataclass `kind` from a parsed mapping.

    Every field must be given, with its own type; only an int where a float is asked for is
    converted. Raises SchemaError, which names the key and for an unknown one the nearest known.
    """
    if not isinstance(values, Mapping):
        raise SchemaError(f'{path or kind.__name__} must be a mapping, not {_show(values)}')
    hints = _hints(typing.cast(Any, kind))
    names = [field.name for field in dataclasses.fields(typing.cast(Any, kind))]
    prefix = f'{path}.' if path else ''
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f'; did you mean {near[0]!r}?' if near else ''
            raise SchemaError(f'unknown key {prefix}{key}{hint}')
    for name in names:
        if name not in values:
            raise SchemaError(f'missing key {prefix}{name}')
    return kind(**{name: _read(hints[name], values[name], prefix + name) for name in names})


def to_mapping(value: Any) -> dict[str, Any]:
    """Return the dataclass as plain dicts, lists and scalars; `from_mapping` reads it back."""
    return {
        field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
    }


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)  # compiles each annotation, which is text


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _read(hint: Any, value: object, path: str) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise SchemaError(f'{path} must be a list, not {_show(value)}')
        item = typing.get_args(hint)[0]
        return tuple(_read(item, v, f'{path}[{i}]') for i, v in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return from_mapping(typing.cast(type, hint), value, path)
    return _read_scalar(hint, value, path)


def _read_scalar(kind: type, value: object, path: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SchemaError(f'{path} must be {kind.__name__}, not {_show(value)}')
    if isinstance(value, float) and not math.isfinite(value):
        raise SchemaError(f'{path} must be finite, not {value!r}')
    return value


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f'{text[:37]}...'
