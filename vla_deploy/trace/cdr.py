# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Reads serialised messages by the definition that stands in their bag: no ROS is needed.

The format is plain CDR (OMG DDS-XTypes 1.3, section 7.4.1, encoding version 1): each primitive
aligned to its size, counted from behind the four bytes of encapsulation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from vla_deploy.trace.definitions import Field

ENCAPSULATION_BYTES = 4
_DTYPES = {
    'bool': '?', 'byte': 'u1', 'char': 'u1', 'int8': 'i1', 'uint8': 'u1', 'int16': 'i2',
    'uint16': 'u2', 'int32': 'i4', 'uint32': 'u4', 'int64': 'i8', 'uint64': 'u8',
    'float32': 'f4', 'float64': 'f8',
}  # fmt: skip
_FORMATS = {
    'bool': '?', 'byte': 'B', 'char': 'B', 'int8': 'b', 'uint8': 'B', 'int16': 'h', 'uint16': 'H',
    'int32': 'i', 'uint32': 'I', 'int64': 'q', 'uint64': 'Q', 'float32': 'f', 'float64': 'd',
}  # fmt: skip


class CdrError(ValueError):
    """Bytes are no message of the given type."""


# takes the bytes and a position, returns the value and the position behind it
_Read = Callable[[bytes, int], tuple[Any, int]]


class Decoder:
    """Reads messages of one type. Fields go by name as in ROS; arrays of numbers are numpy views
    of the message's bytes."""

    def __init__(self, type_name: str, types: Mapping[str, Sequence[Field]]) -> None:
        self._type_name, self._types = type_name, types
        self._readers: dict[bool, _Read] = {}

    def __call__(self, data: bytes) -> Any:
        """Return the message; raises CdrError."""
        if len(data) < ENCAPSULATION_BYTES or data[0] != 0 or data[1] > 1:
            raise CdrError(f'{self._type_name}: not plain CDR, it begins with {data[:4].hex()}')
        little = bool(data[1])
        if little not in self._readers:
            self._readers[little] = self._message(self._type_name, '<' if little else '>')
        try:
            return self._readers[little](data, ENCAPSULATION_BYTES)[0]
        except (struct.error, ValueError, IndexError) as error:
            raise CdrError(f'{self._type_name}: {error}') from error

    def _message(self, type_name: str, order: str) -> _Read:
        if type_name not in self._types:
            raise CdrError(f'{type_name}: is not defined in the bag')
        readers = [(f.name, self._field(f, order)) for f in self._types[type_name]]

        def read(data: bytes, position: int) -> tuple[Any, int]:
            message = SimpleNamespace()
            values = message.__dict__
            for name, read_field in readers:
                values[name], position = read_field(data, position)
            return message, position

        return read if readers else lambda _, position: (SimpleNamespace(), position + 1)

    def _field(self, field: Field, order: str) -> _Read:
        if field.count is None:
            return self._single(field.kind, order)
        if field.kind in _DTYPES:
            return _numbers(np.dtype(order + _DTYPES[field.kind]), field.count, order)
        return _items(self._single(field.kind, order), field.count, order)

    def _single(self, kind: str, order: str) -> _Read:
        if kind == 'string':
            return _string(order)
        if kind in _FORMATS:
            return _number(order + _FORMATS[kind])
        return self._message(kind, order)


def _aligned(position: int, size: int) -> int:
    return position + (ENCAPSULATION_BYTES - position) % size


def _number(code: str) -> _Read:
    packed = struct.Struct(code)
    size, unpack = packed.size, packed.unpack_from

    def read(data: bytes, position: int) -> tuple[Any, int]:
        position = _aligned(position, size)
        return unpack(data, position)[0], position + size

    return read


def _string(order: str) -> _Read:
    length = _number(order + 'I')

    def read(data: bytes, position: int) -> tuple[Any, int]:
        size, position = length(data, position)
        if position + size > len(data):
            raise ValueError(f'a text of {size} bytes ends behind the message')
        return data[position : position + max(0, size - 1)].decode('utf-8'), position + size

    return read


def _numbers(dtype: np.dtype[Any], count: int, order: str) -> _Read:
    length = _number(order + 'I')

    def read(data: bytes, position: int) -> tuple[Any, int]:
        size = count
        if count < 0:
            size, position = length(data, position)
        if size == 0:
            return np.empty(0, dtype), position
        position = _aligned(position, dtype.itemsize)
        return np.frombuffer(data, dtype, size, position), position + size * dtype.itemsize

    return read


def _items(single: _Read, count: int, order: str) -> _Read:
    length = _number(order + 'I')

    def read(data: bytes, position: int) -> tuple[Any, int]:
        size = count
        if count < 0:
            size, position = length(data, position)
        items = []
        for _ in range(size):
            item, position = single(data, position)
            items.append(item)
        return items, position

    return read
