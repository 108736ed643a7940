# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Dataclasses as plain JSON values and back, exactly: floats and arrays to the bit.

The annotations are the schema: bool, int, float, str, enumerations of integers, arrays, T | None,
list[T], tuple[T, ...], tuple[A, B], dict[str, T], and dataclasses of these. A scalar or an empty
tuple that equals its field's default is left out. An array is [dtype, shape, bytes in base64]; a
float that is not finite is a text.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

T = TypeVar('T')


class PlainError(ValueError):
    """A plain value is not what its type writes; one line."""


@dataclasses.dataclass(frozen=True)
class _Codec:
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def to_plain(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON values; raises TypeError for a type that has no form."""
    return dict(_codec_of(typing.cast(Any, type(value))).encode(value))


def from_plain(kind: type[T], plain: object) -> T:
    """Return the dataclass that `to_plain` made `plain` of; raises PlainError."""
    return typing.cast(T, _codec_of(typing.cast(Any, kind)).decode(plain))


@functools.lru_cache(maxsize=256)
def _codec_of(hint: Any) -> _Codec:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    aliased = getattr(origin, '__value__', None)  # NDArray is an alias that has one, from numpy 2.5
    if aliased is not None:
        origin = typing.get_origin(aliased)
    if origin in (types.UnionType, typing.Union):
        return _optional_codec(arguments)
    if hint is np.ndarray or origin is np.ndarray:
        return _Codec(_encode_array, _decode_array)
    if origin is list:
        item = _codec_of(arguments[0])
        return _Codec(lambda v: [item.encode(x) for x in v],
                      lambda p: [item.decode(x) for x in _expect(p, list)])
    if origin is tuple:
        return _tuple_codec(arguments)
    if origin is dict and arguments[0] is str:
        inner = _codec_of(arguments[1])
        return _Codec(
            lambda v: {key: inner.encode(item) for key, item in v.items()},
            lambda p: {key: inner.decode(item) for key, item in _expect(p, dict).items()},
        )
    if dataclasses.is_dataclass(hint):
        return _dataclass_codec(typing.cast(type, hint))
    if hint is float:
        return _Codec(_encode_float, _decode_float)
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return _Codec(int, functools.partial(_decode_enum, hint))
    if hint in (bool, int, str):
        return _Codec(hint, functools.partial(_expect, kind=hint))
    raise TypeError(f'{hint} has no plain form')


def _optional_codec(arguments: tuple[Any, ...]) -> _Codec:
    hints = [a for a in arguments if a is not types.NoneType]
    if len(hints) != 1:
        raise TypeError(f'{arguments} has no plain form: one type or None')
    inner = _codec_of(hints[0])
    return _Codec(
        lambda v: None if v is None else inner.encode(v),
        lambda p: None if p is None else inner.decode(p),
    )


def _tuple_codec(arguments: tuple[Any, ...]) -> _Codec:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item = _codec_of(arguments[0])
        return _Codec(
            lambda v: [item.encode(x) for x in v],
            lambda p: tuple(item.decode(x) for x in _expect(p, list)),
        )
    items = [_codec_of(a) for a in arguments]

    def decode(plain: Any) -> tuple[Any, ...]:
        if len(_expect(plain, list)) != len(items):
            raise PlainError(f'{len(plain)} values where {len(items)} belong')
        return tuple(c.decode(x) for c, x in zip(items, plain, strict=True))

    return _Codec(lambda v: [c.encode(x) for c, x in zip(items, v, strict=True)], decode)


def _dataclass_codec(kind: type) -> _Codec:
    hints = typing.get_type_hints(kind)
    fields = [(f.name, f.default, _codec_of(hints[f.name])) for f in dataclasses.fields(kind)]
    codecs = {name: codec for name, _, codec in fields}

    def encode(value: Any) -> dict[str, Any]:
        plain = {}
        for name, default, codec in fields:
            item = getattr(value, name)
            if not _is_default(item, default):
                plain[name] = codec.encode(item)
        return plain

    def decode(plain: Any) -> Any:
        for name in _expect(plain, dict):
            if name not in codecs:
                raise PlainError(f'{kind.__name__} has no {name!r}')
        try:
            return kind(**{name: codecs[name].decode(item) for name, item in plain.items()})
        except TypeError as error:
            raise PlainError(f'{kind.__name__}: {error}') from None

    return _Codec(encode, decode)


def _is_default(item: Any, default: Any) -> bool:
    """Whether a scalar, None or empty tuple equals its default, to the bit."""
    if default is dataclasses.MISSING or type(item) is not type(default):
        return False
    if isinstance(default, float):
        return repr(item) == repr(default)
    return item is None or (isinstance(item, (bool, int, str, tuple)) and bool(item == default))


def _expect(plain: Any, kind: Any) -> Any:
    if type(plain) is not kind:
        raise PlainError(f'{type(plain).__name__} where {kind.__name__} belongs')
    return plain


def _encode_float(value: float) -> float | str:
    value = float(value)
    return value if math.isfinite(value) else repr(value)


def _decode_float(plain: Any) -> float:
    if type(plain) in (float, int) or plain in ('nan', 'inf', '-inf'):
        return float(plain)
    raise PlainError(f'{plain!r} is not a number')


def _decode_enum(kind: type[enum.IntEnum], plain: Any) -> enum.IntEnum:
    try:
        return kind(_expect(plain, int))
    except ValueError as error:
        raise PlainError(str(error)) from None


def _encode_array(value: Any) -> list[Any]:
    if value.dtype.hasobject:
        raise TypeError('an array of objects has no plain form')
    return [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode('ascii')]


def _decode_array(plain: Any) -> Any:
    try:
        dtype, shape, text = plain
        data = base64.b64decode(text, validate=True)
        return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
    except (TypeError, ValueError, binascii.Error) as error:
        raise PlainError(f'is not an array: {error}') from None
