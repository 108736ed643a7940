# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What rosbag2 of Jazzy (0.26, metadata version 9) asks of a bag before it plays it.

Its reader takes each key of metadata.yaml as a value of a type and refuses the file where one is
missing or of another; so does its MCAP plugin with the record `rosbag2` and each channel. The names
of policies are judged by the function of ROS itself that the reader calls.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import yaml
from mcap.reader import make_reader

VERSION = 9
_POLICIES = {'history': 3, 'reliability': 3, 'durability': 3, 'liveliness': 4}  # -> unknown
_QOS = ('depth', 'deadline', 'lifespan', 'liveliness_lease_duration')


def assert_played_by_rosbag2(folder: Path) -> None:
    """Assert that a closed bag has all that `ros2 bag play` reads, and of the right types."""
    text = (folder / 'metadata.yaml').read_text(encoding='utf-8')
    assert not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
    document = yaml.safe_load(text)
    assert set(document) == {'rosbag2_bagfile_information'}
    information = document['rosbag2_bagfile_information']
    check_information(information)
    (file,) = information['relative_file_paths']
    check_file(folder / file, information)


def check_information(information: dict[str, Any]) -> None:
    """Judge the content of metadata.yaml, and of the record in the file; raises AssertionError."""
    assert information['version'] == VERSION
    assert information['storage_identifier'] == 'mcap'
    _check_span(information)
    for key in ('compression_format', 'compression_mode'):
        assert information[key] == '', key  # else another reader is asked for
    assert isinstance(information['ros_distro'], str)
    custom = information['custom_data']
    assert custom is None or all(isinstance(t, str) for pair in custom.items() for t in pair)
    paths = information['relative_file_paths']
    assert paths
    assert all(isinstance(path, str) and '/' not in path for path in paths)
    assert [file['path'] for file in information['files']] == paths
    for file in information['files']:
        _check_span(file)
    assert isinstance(information['topics_with_message_count'], list)
    for topic in information['topics_with_message_count']:
        assert _is_count(topic['message_count'])
        _check_topic(topic['topic_metadata'])
    counts = [topic['message_count'] for topic in information['topics_with_message_count']]
    assert information['message_count'] == sum(counts)


def check_file(path: Path, information: dict[str, Any]) -> None:
    """Judge the MCAP file: its summary must say the same as metadata.yaml."""
    topics = {
        topic['topic_metadata']['name']: topic for topic in information['topics_with_message_count']
    }
    with path.open('rb') as file:
        reader = make_reader(file)
        assert reader.get_header().profile == 'ros2'
        summary = reader.get_summary()
        records = {record.name: record.metadata for record in reader.iter_metadata()}
    check_information(yaml.safe_load(records['rosbag2']['serialized_metadata']))
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == information['message_count']
    # Messages are played in order of their time, for which each chunk must have its indices.
    assert all(chunk.message_index_offsets for chunk in summary.chunk_indexes)
    assert {channel.topic for channel in summary.channels.values()} == set(topics)
    for number, channel in summary.channels.items():
        topic = topics[channel.topic]
        described, schema = topic['topic_metadata'], summary.schemas[channel.schema_id]
        assert (channel.message_encoding, schema.encoding) == ('cdr', 'ros2msg')
        assert schema.name == described['type']
        assert schema.data
        offered = yaml.safe_load(channel.metadata['offered_qos_profiles'])
        assert offered == described['offered_qos_profiles']
        assert channel.metadata['topic_type_hash'] == described['type_description_hash']
        counted = summary.statistics.channel_message_counts.get(number, 0)
        assert counted == topic['message_count']


def _check_span(values: dict[str, Any]) -> None:
    assert _is_count(values['starting_time']['nanoseconds_since_epoch'])
    assert _is_count(values['duration']['nanoseconds'])
    assert _is_count(values['message_count'])


def _check_topic(described: dict[str, Any]) -> None:
    assert described['name'].startswith('/')
    assert described['type'].count('/') == 2
    assert described['serialization_format'] == 'cdr'
    hashed = described['type_description_hash']
    assert hashed.startswith('RIHS01_')
    assert len(hashed) == len('RIHS01_') + 64
    assert isinstance(described['offered_qos_profiles'], list)
    for profile in described['offered_qos_profiles']:
        _check_qos(profile)


def _check_qos(profile: dict[str, Any]) -> None:
    for name, unknown in _POLICIES.items():
        value = profile[name]
        assert value == 'unknown' or _policy(name, value) != unknown, (name, value)
    assert isinstance(profile['avoid_ros_namespace_conventions'], bool)
    depth, *durations = (profile[name] for name in _QOS)
    assert _is_count(depth)
    for duration in durations:
        assert set(duration) == {'sec', 'nsec'}
        assert _is_count(duration['sec'])
        assert _is_count(duration['nsec'])
        assert duration['nsec'] < 10**9


def _policy(name: str, value: str) -> int:
    """Return the number of a policy as ROS itself reads its name."""
    from_str = getattr(ctypes.CDLL('librmw.so'), f'rmw_qos_{name}_policy_from_str')
    from_str.argtypes, from_str.restype = [ctypes.c_char_p], ctypes.c_int
    return int(from_str(value.encode('ascii')))


def _is_count(value: Any) -> bool:
    """Whether a value is read as an unsigned number of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64
