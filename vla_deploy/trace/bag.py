# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Reads a bag: messages in the order in which they were written, and what was put beside them.

A bag whose recorder was killed, or whose disk was full, is read up to where it is whole; the
reader says so. It needs no ROS: every bag carries the definitions of its messages.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import (
    Attachment,
    Channel,
    Chunk,
    McapRecord,
    Message,
    Metadata,
    MetadataIndex,
    Schema,
    SummaryOffset,
)
from mcap.stream_reader import CRCValidationError, breakup_chunk

from vla_deploy.trace.bag_writer import Topic
from vla_deploy.trace.cdr import CdrError, Decoder
from vla_deploy.trace.definitions import DefinitionError, split_definition

T = TypeVar('T')

MAGIC = b'\x89MCAP0\r\n'
_HEAD = struct.Struct('<BQ')
_FOOTER_BYTES = _HEAD.size + 8 + 8 + 4 + len(MAGIC)
_READ: dict[int, Callable[[bytes], list[McapRecord]]] = {
    Opcode.CHUNK: lambda data: breakup_chunk(Chunk.read(_stream(data)), validate_crc=True),
    Opcode.SCHEMA: lambda data: [Schema.read(_stream(data))],
    Opcode.CHANNEL: lambda data: [Channel.read(_stream(data))],
    Opcode.MESSAGE: lambda data: [Message.read(_stream(data), len(data))],
    Opcode.METADATA: lambda data: [Metadata.read(_stream(data))],
    Opcode.ATTACHMENT: lambda data: [Attachment.read(_stream(data))],
}
# What the readers of records and of compressed data raise where the bytes are not theirs.
_BROKEN = (McapError, CRCValidationError, struct.error, EOFError, ValueError, RuntimeError,
           OverflowError, MemoryError, zstandard.ZstdError)  # fmt: skip


class BagError(ValueError):
    """A bag cannot be read at all; the one-line message names it."""


@dataclass(frozen=True)
class Recorded:
    """One message as it was recorded."""

    topic: str
    type_name: str
    log_ns: int
    publish_ns: int
    data: bytes


@dataclass
class Bag:
    """A bag by its folder or its .mcap file. After `messages` has ended, `metadata`, `attachments`
    and `topics` hold what the bag carries beside them, and `broken` says where it was cut."""

    path: Path
    broken: str = ''
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    attachments: dict[str, bytes] = field(default_factory=dict)
    topics: dict[str, Topic] = field(default_factory=dict)
    _decoders: dict[str, Decoder] = field(default_factory=dict)
    _definitions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files = bag_files(self.path)

    def messages(self, types: Collection[str] | None = None) -> Iterator[Recorded]:
        """Yield every message, or those of some types alone."""
        for path in self.files:
            for recorded in self._recorded(path):
                if types is None or recorded.type_name in types:
                    yield recorded

    def decode(self, recorded: Recorded) -> Any:
        """Return a message with its fields by name; raises BagError."""
        name = recorded.type_name
        try:
            if name not in self._decoders:
                types = split_definition(name, self._definitions[name])
                self._decoders[name] = Decoder(name, types)
            return self._decoders[name](recorded.data)
        except (CdrError, DefinitionError, RecursionError) as error:
            raise BagError(f'{self.path}: {recorded.topic}: {error}') from error

    def _recorded(self, path: Path) -> Iterator[Recorded]:
        size = path.stat().st_size
        with path.open('rb') as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise BagError(f'{path}: is no MCAP file')
            whole, reason, closed = len(MAGIC), '', False
            content = _Content(self)
            while not closed and not reason and size - whole >= _HEAD.size:
                opcode, length = _HEAD.unpack(file.read(_HEAD.size))
                if length > size - whole - _HEAD.size:
                    reason = 'it ends within a record'
                elif opcode in _READ:
                    try:
                        messages = content.take(_READ[opcode](file.read(length)))
                    except _BROKEN as error:
                        reason = ' '.join(str(error).split()) or type(error).__name__
                        messages = []
                    yield from messages
                else:
                    file.seek(length, 1)
                closed = opcode == Opcode.FOOTER
                whole += 0 if reason else _HEAD.size + length
        if not closed:
            self.broken = (
                f'{path}: was not closed; read up to byte {whole} of {size}'
                f'{f" ({reason})" if reason else ""}; what the recorder took in its last second '
                'is lost'
            )


class _Content:
    """What the records of one file say: they refer to those before them."""

    def __init__(self, bag: Bag) -> None:
        self._bag = bag
        self._topics: dict[int, Topic] = {}  # by channel
        self._schemas: dict[int, tuple[str, str]] = {0: ('', '')}  # 0: a channel without any

    def take(self, records: list[McapRecord]) -> list[Recorded]:
        """Return the messages; raises ValueError where one refers to what was not there."""
        found = []
        for record in records:
            if isinstance(record, Message):
                topic = _known(self._topics, record.channel_id, 'message of channel')
                found.append(Recorded(topic.name, topic.type_name, record.log_time,
                                      record.publish_time, record.data))  # fmt: skip
            elif isinstance(record, Schema):
                # What is no text is another encoding's, whose messages nothing here reads.
                text = record.data.decode('utf-8', errors='replace')
                self._schemas[record.id] = (record.name, text)
                self._bag._definitions[record.name] = text
            elif isinstance(record, Channel):
                schema = _known(self._schemas, record.schema_id, 'channel of schema')
                topic = _topic(record, *schema)
                self._topics[record.id] = self._bag.topics[record.topic] = topic
            elif isinstance(record, Metadata):
                self._bag.metadata[record.name] = record.metadata
            elif isinstance(record, Attachment):
                self._bag.attachments[record.name] = record.data
        return found


def _known(things: Mapping[int, T], number: int, what: str) -> T:
    if number not in things:
        raise ValueError(f'a {what} {number}, which is not there')
    return things[number]


def _topic(channel: Channel, type_name: str, definition: str) -> Topic:
    try:
        qos = yaml.safe_load(channel.metadata.get('offered_qos_profiles', ''))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f'the QoS of {channel.topic} is not YAML') from error
    profiles = tuple(qos) if isinstance(qos, list) else ()
    type_hash = channel.metadata.get('topic_type_hash', '')
    return Topic(channel.topic, type_name, definition, type_hash, profiles)


def bag_files(path: Path) -> list[Path]:
    """Return the MCAP files of a bag; raises BagError where there are none."""
    if path.is_file():
        return [path]
    files = sorted(path.glob('*.mcap'))
    if not files:
        raise BagError(f'{path}: no bag: it holds no .mcap file')
    return files


def closing_records(path: Path, names: Collection[str]) -> dict[str, dict[str, str]]:
    """Return records of texts by name, without reading the messages of an MCAP file.

    Without those that it does not have; none at all where the file was not closed, or its index
    is damaged: who reads all of it finds where.
    """
    with path.open('rb') as file:
        try:
            return _closing_records(file, names)
        except _BROKEN:
            return {}


def _closing_records(file: BinaryIO, names: Collection[str]) -> dict[str, dict[str, str]]:
    size = file.seek(0, 2)
    if size < _FOOTER_BYTES + len(MAGIC):
        return {}
    footer = _part(file, size, size - _FOOTER_BYTES, _FOOTER_BYTES)
    offsets_start = struct.unpack_from('<Q', footer, _HEAD.size + 8)[0]
    closed = footer[-len(MAGIC) :] == MAGIC and footer[0] == Opcode.FOOTER
    if not closed or not 0 < offsets_start < size:
        return {}
    offsets = _small_records(
        _part(file, size, offsets_start, size - _FOOTER_BYTES - offsets_start)
    )
    groups = [SummaryOffset.read(b) for code, b in offsets if code == Opcode.SUMMARY_OFFSET]
    found = {}
    for group in groups:
        if group.group_opcode == Opcode.METADATA_INDEX:
            data = _part(file, size, group.group_start, group.group_length)
            for _, body in _small_records(data):
                index = MetadataIndex.read(body)
                if index.name in names:
                    ((_, record),) = _small_records(_part(file, size, index.offset, index.length))
                    found[index.name] = Metadata.read(record).metadata
    return found


def _part(file: BinaryIO, size: int, start: int, length: int) -> bytes:
    """Return bytes of a file; raises ValueError where there are none: it may say anything."""
    if not 0 <= length <= size - start:
        raise ValueError('the index points behind the end of the file')
    file.seek(start)
    return file.read(length)


def _small_records(data: bytes) -> Iterator[tuple[int, ReadDataStream]]:
    position = 0
    while position + _HEAD.size <= len(data):
        opcode, length = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        yield opcode, _stream(data[position : position + length])
        position += length


def _stream(data: bytes) -> ReadDataStream:
    return ReadDataStream(BytesIO(data))
