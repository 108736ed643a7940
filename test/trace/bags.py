# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Bags that tests write, message by message, and an independent reader of bags."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader

from vla_deploy.ros.conversions import duration_msg, time_msg
from vla_deploy.trace.bag_writer import BagWriter, Topic
from vla_deploy.trace.definitions import installed_definition
from vla_deploy.trace.episodes import RECORDING, EpisodeWatch
from vla_deploy_msgs.msg import ActionChunk

BEGIN_NS = 1_700_000_000_000_000_000


class Written:
    """A bag that is written like the recorder's, one message every 10 ms."""

    def __init__(self, folder: Path, robot: str = 'franka', begin_ns: int = BEGIN_NS) -> None:
        self.writer = BagWriter(folder, distro='jazzy')
        self.writer.add_metadata(RECORDING, {'robot': robot})
        self.now_ns = begin_ns
        self._watch = EpisodeWatch()
        self._topics: dict[str, tuple[Topic, int]] = {}

    def add(self, name: str, message) -> None:
        kind = type(message)
        type_name = f'{kind.__module__.split(".")[0]}/msg/{kind.__name__}'
        if name not in self._topics:
            topic = Topic(name, type_name, *installed_definition(type_name))
            self._topics[name] = (topic, self.writer.add_topic(topic))
        self.add_bytes(name, serialize_message(message))

    def add_bytes(self, name: str, data: bytes) -> None:
        topic, channel = self._topics[name]
        self.writer.write(channel, self.now_ns, self.now_ns, data)
        self._watch.see(topic, self.now_ns, data)
        self.now_ns += 10_000_000

    def close(self) -> Path:
        for name, values in self._watch.closing().items():
            self.writer.add_metadata(name, values)
        self.writer.close()
        return self.writer.folder


def chunk(session_id='a', seq=0, task='reach', latency_s=0.02, model='m' * 8) -> ActionChunk:
    """A chunk as inference sends it, of two samples and one joint."""
    return ActionChunk(
        schema_version=ActionChunk.SCHEMA_VERSION, session_id=session_id, seq=seq,
        model_sha256=model, instruction=task, inference_time=duration_msg(latency_s),
        period=duration_msg(0.1), joint_names=['j'], steps=2, data=[0.0, 0.1],
        sent_stamp=time_msg(BEGIN_NS),
    )  # fmt: skip


def independent(folder: Path) -> dict[str, list]:
    """Return topic -> messages, all of them, as `rosbags` reads and decodes them; it computes the
    hash of every type from its definition and compares it with the one in the bag."""
    heard: dict[str, list] = {}
    with AnyReader([folder]) as reader:
        for connection, _, data in reader.messages():
            heard.setdefault(connection.topic, []).append(
                reader.deserialize(data, connection.msgtype)
            )
    return heard


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
