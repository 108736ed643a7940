# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a bag as rosbag2 does: a folder with an MCAP file and a metadata.yaml of version 9.

The MCAP file can be read up to the last `flush` whatever happens to the process.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcap.writer import CompressionType, Writer

from vla_deploy.files import write_bytes, yaml_text

METADATA = 'metadata.yaml'
INFORMATION = 'rosbag2_bagfile_information'  # the one key of that file
METADATA_VERSION = 9
COMPRESSIONS = {
    'none': CompressionType.NONE,
    'lz4': CompressionType.LZ4,
    'zstd': CompressionType.ZSTD,
}
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Topic:
    """One topic as a bag describes it. `qos`: the offered profiles as rosbag2 spells them."""

    name: str
    type_name: str
    definition: str
    type_hash: str
    qos: tuple[Mapping[str, Any], ...] = ()


@dataclass
class _Channel:
    topic: Topic
    count: int = 0
    held: int = 0  # in memory, until a chunk is full or flushed


@dataclass
class _Span:
    begin_ns: int | None = None
    end_ns: int = 0
    count: int = 0

    def add(self, log_ns: int) -> None:
        self.begin_ns = log_ns if self.begin_ns is None else min(self.begin_ns, log_ns)
        self.end_ns = max(self.end_ns, log_ns)
        self.count += 1


class BagWriter:
    """One bag that is being written. Used by one thread; every method may raise OSError."""

    def __init__(self, folder: Path, compression: str = 'lz4', distro: str = '') -> None:
        """Make the folder, which must not exist, and begin the file. `distro`: of the ROS that
        records, as ROS_DISTRO names it."""
        folder.mkdir(parents=True)
        self.folder, self._distro = folder, distro
        self.file = folder / f'{folder.name}_0.mcap'
        self._sink = _Sink(self.file)
        self._writer = Writer(self._sink, CHUNK_BYTES, COMPRESSIONS[compression])  # type: ignore[arg-type]
        self._channels: dict[int, _Channel] = {}
        self._schemas: dict[str, int] = {}
        self._span = _Span()
        self._size = 0
        self._writer.start('ros2', 'vla_deploy')
        self._write_metadata()
        self.flush()

    @property
    def bytes_written(self) -> int:
        """Bytes in the file."""
        return self._sink.tell()

    @property
    def messages(self) -> int:
        """Messages taken so far."""
        return self._span.count

    def add_topic(self, topic: Topic) -> int:
        """Begin a topic; return the number of its channel."""
        if topic.type_name not in self._schemas:
            self._schemas[topic.type_name] = self._writer.register_schema(
                topic.type_name, 'ros2msg', topic.definition.encode('utf-8')
            )
        described = {
            'offered_qos_profiles': yaml_text([dict(q) for q in topic.qos]),
            'topic_type_hash': topic.type_hash,
        }
        channel = self._writer.register_channel(
            topic.name, 'cdr', self._schemas[topic.type_name], described
        )
        self._look_for_chunk()
        self._channels[channel] = _Channel(topic)
        return channel

    def write(self, channel: int, log_ns: int, publish_ns: int, data: bytes) -> None:
        """Write a message; `log_ns` is when it came, `publish_ns` when it was sent."""
        counted = self._channels[channel]
        counted.held += 1
        self._writer.add_message(channel, log_ns, data, publish_ns, counted.count)
        counted.count += 1
        self._span.add(log_ns)
        self._look_for_chunk()

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Write a named record of texts."""
        self._writer.flush()
        self._writer.add_metadata(name, dict(values))

    def add_attachment(self, name: str, media_type: str, data: bytes, log_ns: int) -> None:
        """Write a file into the bag."""
        self._writer.flush()
        self._writer.add_attachment(log_ns, log_ns, name, media_type, data)

    def flush(self) -> None:
        """Hand everything to the operating system, so that a killed process loses none of it."""
        self._writer.flush()
        self._look_for_chunk()

    def close(self) -> None:
        """Write the index, and metadata.yaml anew."""
        self.flush()
        information = yaml_text(self._information())
        self._writer.add_metadata('rosbag2', {'serialized_metadata': information})
        self._writer.finish()
        self._sink.close()
        self._write_metadata()

    def abandon(self) -> dict[str, int]:
        """After an OSError: close the file, which ends with the last whole record. Return how many
        messages of each topic were given to `write` and are not in it."""
        self._sink.close()
        return {c.topic.name: c.held for c in self._channels.values() if c.held}

    def discard(self) -> None:
        """Take away what was written."""
        self._sink.close()
        shutil.rmtree(self.folder)

    def _look_for_chunk(self) -> None:
        """Notice that what was held has been written."""
        if self._sink.tell() != self._size:
            self._size = self._sink.tell()
            for channel in self._channels.values():
                channel.held = 0

    def _write_metadata(self) -> None:
        text = yaml_text({INFORMATION: self._information()})
        write_bytes(self.folder / METADATA, text.encode('utf-8'))

    def _information(self) -> dict[str, Any]:
        begin_ns = self._span.begin_ns or 0
        span = {
            'starting_time': {'nanoseconds_since_epoch': begin_ns},
            'duration': {'nanoseconds': max(0, self._span.end_ns - begin_ns)},
            'message_count': self._span.count,
        }
        return {
            'version': METADATA_VERSION,
            'storage_identifier': 'mcap',
            **span,
            'topics_with_message_count': [
                {
                    'topic_metadata': {
                        'name': channel.topic.name,
                        'type': channel.topic.type_name,
                        'serialization_format': 'cdr',
                        'offered_qos_profiles': [dict(q) for q in channel.topic.qos],
                        'type_description_hash': channel.topic.type_hash,
                    },
                    'message_count': channel.count,
                }
                for channel in self._channels.values()
            ],
            'compression_format': '',
            'compression_mode': '',
            'relative_file_paths': [self.file.name],
            'files': [{'path': self.file.name, **span}],
            'custom_data': None,
            'ros_distro': self._distro,
        }


@dataclass
class _Sink:
    """The file, unbuffered, so that a failed write can be undone: each is of whole records."""

    path: Path
    _descriptor: int = field(init=False)
    _position: int = 0

    def __post_init__(self) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            os.ftruncate(self._descriptor, self._position)
            raise
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
