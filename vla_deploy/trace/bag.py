# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Reads a bag: messages in the order in which they were written, and what was put beside them.

A bag whose recorder was killed, or whose disk was full, is read up to where it is whole; the
reader says so. It needs no ROS: every bag carries the definitions of its messages.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

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
_BROKEN = (McapError, CRCValidationError, struct.error, EOFError, UnicodeDecodeError, RuntimeError,
           zstandard.ZstdError)  # fmt: skip


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
            channels: dict[int, Channel] = {}
            schemas: dict[int, Schema] = {}
            for record in self._records(path):
                if isinstance(record, Message):
                    channel = channels[record.channel_id]
                    type_name = schemas[channel.schema_id].name
                    if types is None or type_name in types:
                        yield Recorded(channel.topic, type_name, record.log_time,
                                       record.publish_time, record.data)  # fmt: skip
                elif isinstance(record, Schema):
                    schemas[record.id] = record
                    self._definitions[record.name] = record.data.decode('utf-8')
                elif isinstance(record, Channel):
                    channels[record.id] = record
                    self.topics[record.topic] = _topic(record, schemas[record.schema_id])
                elif isinstance(record, Metadata):
                    self.metadata[record.name] = record.metadata
                elif isinstance(record, Attachment):
                    self.attachments[record.name] = record.data

    def decode(self, recorded: Recorded) -> Any:
        """Return a message with its fields by name; raises BagError."""
        name = recorded.type_name
        try:
            if name not in self._decoders:
                types = split_definition(name, self._definitions[name])
                self._decoders[name] = Decoder(name, types)
            return self._decoders[name](recorded.data)
        except (CdrError, DefinitionError) as error:
            raise BagError(f'{self.path}: {recorded.topic}: {error}') from error

    def _records(self, path: Path) -> Iterator[McapRecord]:
        size = path.stat().st_size
        with path.open('rb') as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise BagError(f'{path}: is no MCAP file')
            whole, reason, closed = len(MAGIC), '', False
            while not closed and not reason and size - whole >= _HEAD.size:
                opcode, length = _HEAD.unpack(file.read(_HEAD.size))
                if length > size - whole - _HEAD.size:
                    reason = 'it ends within a record'
                elif opcode in _READ:
                    try:
                        records = _READ[opcode](file.read(length))
                    except _BROKEN as error:
                        reason = ' '.join(str(error).split()) or type(error).__name__
                        records = []
                    yield from records
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


def _topic(channel: Channel, schema: Schema) -> Topic:
    qos = yaml.safe_load(channel.metadata.get('offered_qos_profiles', '')) or ()
    type_hash = channel.metadata.get('topic_type_hash', '')
    return Topic(channel.topic, schema.name, schema.data.decode('utf-8'), type_hash, tuple(qos))


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

    Without those that it does not have; none at all where the file was not closed.
    """
    with path.open('rb') as file:
        size = file.seek(0, 2)
        if size < _FOOTER_BYTES + len(MAGIC):
            return {}
        file.seek(size - _FOOTER_BYTES)
        footer = file.read(_FOOTER_BYTES)
        offsets_start = struct.unpack_from('<Q', footer, _HEAD.size + 8)[0]
        closed = footer[-len(MAGIC) :] == MAGIC and footer[0] == Opcode.FOOTER
        if not closed or not 0 < offsets_start < size:
            return {}
        file.seek(offsets_start)
        offsets = _small_records(file.read(size - _FOOTER_BYTES - offsets_start))
        groups = [SummaryOffset.read(b) for code, b in offsets if code == Opcode.SUMMARY_OFFSET]
        found = {}
        for group in groups:
            if group.group_opcode == Opcode.METADATA_INDEX:
                file.seek(group.group_start)
                for _, body in _small_records(file.read(group.group_length)):
                    index = MetadataIndex.read(body)
                    if index.name in names:
                        file.seek(index.offset)
                        ((_, record),) = _small_records(file.read(index.length))
                        found[index.name] = Metadata.read(record).metadata
        return found


def _small_records(data: bytes) -> Iterator[tuple[int, ReadDataStream]]:
    position = 0
    while position + _HEAD.size <= len(data):
        opcode, length = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        yield opcode, _stream(data[position : position + length])
        position += length


def _stream(data: bytes) -> ReadDataStream:
    return ReadDataStream(BytesIO(data))
