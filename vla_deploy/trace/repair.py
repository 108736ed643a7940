# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A closed bag out of one whose recorder was killed, so that `ros2 bag play` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vla_deploy.files import MAX_TEXT_BYTES, read_bytes, read_yaml, write_bytes
from vla_deploy.trace.bag import Bag, BagError
from vla_deploy.trace.bag_writer import INFORMATION, METADATA, BagWriter
from vla_deploy.trace.episodes import EPISODES, EpisodeWatch
from vla_deploy.trace.labels import LABELS

ROSBAG2 = 'rosbag2'  # the record that a closed bag ends with


@dataclass(frozen=True)
class Repaired:
    """The new folder, the messages in it, and where the old bag was cut."""

    folder: Path
    messages: int
    cut: str


def repair(bag: Bag, target: Path) -> Repaired:
    """Write all that can be read into a new bag; raises BagError where there is nothing to do,
    or `target` exists already."""
    if target.exists():
        raise BagError(f'{target}: exists already')
    writer = BagWriter(target, distro=_distro(bag))
    whole = False
    try:
        watch, channels = EpisodeWatch(), {}
        for recorded in bag.messages():
            topic = bag.topics[recorded.topic]
            if topic.name not in channels:
                channels[topic.name] = writer.add_topic(topic)
            writer.write(
                channels[topic.name], recorded.log_ns, recorded.publish_ns, recorded.data
            )
            watch.see(topic, recorded.log_ns, recorded.data)
        if not bag.broken:
            raise BagError(f'{bag.path}: was closed: there is nothing to repair')
        for name, data in bag.attachments.items():
            writer.add_attachment(name, 'application/octet-stream', data, 0)
        kept = {n: v for n, v in bag.metadata.items() if n not in (ROSBAG2, EPISODES)}
        for name, values in {**kept, **watch.closing()}.items():
            writer.add_metadata(name, values)
        writer.close()
        labels = bag.files[0].parent / LABELS
        if labels.is_file():
            write_bytes(target / LABELS, read_bytes(labels, MAX_TEXT_BYTES))
        whole = True
    finally:
        if not whole:
            writer.discard()
    return Repaired(target, writer.messages, bag.broken)


def _distro(bag: Bag) -> str:
    """Return the ROS that recorded a bag, as the file beside it says since its begin."""
    path = bag.files[0].parent / METADATA
    if not path.is_file():
        return ''
    information = read_yaml(path).get(INFORMATION) or {}
    return str(information.get('ros_distro', ''))
