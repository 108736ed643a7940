# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Bags: what is written is what ROS, `rosbags` and our own reader read, also when it was cut."""

import numpy as np
import pytest
import yaml
from bags import Written, chunk, independent, no_file_beyond
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from hypothesis import given
from hypothesis import strategies as st
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from rosbag2_format import assert_played_by_rosbag2, check_information
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_msg
from vla_deploy.ros.recorded_topics import described
from vla_deploy.trace.bag import Bag, BagError
from vla_deploy.trace.bag_writer import CHUNK_BYTES, BagWriter, Topic
from vla_deploy.trace.cdr import CdrError, Decoder
from vla_deploy.trace.definitions import (
    DefinitionError,
    installed_definition,
    parse_fields,
    split_definition,
)
from vla_deploy_msgs.msg import GuardStatus

floats = st.floats(allow_nan=False, width=64)


def decoder(type_name):
    return Decoder(type_name, split_definition(type_name, installed_definition(type_name)[0]))


def same(ours, theirs):
    """Whether a message of ours holds what a message of ROS does, field by field."""
    for name in theirs.get_fields_and_field_types():
        was, have = getattr(theirs, name), getattr(ours, name)
        if hasattr(was, 'get_fields_and_field_types'):
            assert same(have, was)
        elif isinstance(was, list) and was and hasattr(was[0], 'get_fields_and_field_types'):
            assert len(have) == len(was)
            assert all(same(a, b) for a, b in zip(have, was, strict=True))
        elif isinstance(was, bytes):
            assert have == was[0], name
        elif isinstance(was, str | bool | int | float):
            assert have == was, name
        else:
            assert list(have) == list(was), name
    return True


@given(st.text(max_size=20).filter(lambda t: '\0' not in t and t.isprintable()),
       st.lists(floats, max_size=5), st.lists(st.text('ab', max_size=3), max_size=4))
def test_when_ros_serialises_a_message_expect_the_same_fields_read(frame, values, names):
    state = JointState(name=names, position=values, effort=values[:1])
    state.header.stamp, state.header.frame_id = time_msg(12_000_000_034), frame
    assert same(decoder('sensor_msgs/msg/JointState')(serialize_message(state)), state)


@given(st.lists(st.text('xyz', max_size=3), max_size=3), st.lists(floats, max_size=3))
def test_when_messages_are_nested_expect_the_same_fields_read(texts, values):
    values_of = [KeyValue(key=t, value=t[::-1]) for t in texts]
    array = DiagnosticArray(
        status=[DiagnosticStatus(level=bytes([i]), name=t, values=values_of)
                for i, t in enumerate(texts)]
    )  # fmt: skip
    assert same(decoder('diagnostic_msgs/msg/DiagnosticArray')(serialize_message(array)), array)
    status = GuardStatus(state=3, rule_names=texts, rule_counts=[7] * len(values), sched_fifo=True)
    assert same(decoder('vla_deploy_msgs/msg/GuardStatus')(serialize_message(status)), status)


@pytest.mark.parametrize('cut', [0, 3, 8, 30])
def test_when_a_message_is_cut_expect_an_error_that_names_its_type(cut):
    data = serialize_message(JointState(name=['a'], position=[1.0]))[:cut]
    with pytest.raises(CdrError, match='sensor_msgs/msg/JointState'):
        decoder('sensor_msgs/msg/JointState')(data)


def test_when_a_definition_has_constants_bounds_and_comments_expect_the_fields_alone():
    text = 'uint8 A=1 # one\nstring<=10[<=3] names\nfloat64[9] k 0\nHeader header\n#\nOther o'
    fields = [(f.name, f.kind, f.count) for f in parse_fields(text, 'p')]
    assert fields == [
        ('names', 'string', -1), ('k', 'float64', 9), ('header', 'std_msgs/msg/Header', None),
        ('o', 'p/msg/Other', None),
    ]  # fmt: skip


@pytest.mark.parametrize('name', ['no_such_package/msg/A', 'std_msgs/msg/NoSuch', 'nonsense'])
def test_when_a_type_is_not_installed_expect_an_error_that_names_it(name):
    with pytest.raises(DefinitionError, match=name):
        installed_definition(name)


@pytest.fixture
def written(tmp_path):
    bag = Written(tmp_path / 'run')
    for seq in range(5):
        bag.add('/action_chunk', chunk(seq=seq))
        bag.add('/image/front', Image(height=2, width=2, step=6, data=bytes([seq] * 12)))
        bag.add('/text', String(data=f'number {seq}'))
    return bag


def test_when_a_bag_is_closed_expect_an_independent_reader_to_read_every_message(written):
    heard = independent(written.close())  # computes each type's hash from its definition
    assert {topic: len(messages) for topic, messages in heard.items()} == {
        '/action_chunk': 5, '/image/front': 5, '/text': 5,
    }  # fmt: skip
    assert [m.seq for m in heard['/action_chunk']] == list(range(5))
    assert [m.data for m in heard['/text']] == [f'number {i}' for i in range(5)]
    assert np.array_equal(heard['/image/front'][3].data, [3] * 12)


def test_when_a_bag_is_closed_expect_its_file_described(written):
    information = read_information(written.close())
    assert information['relative_file_paths'] == ['run_0.mcap']
    assert information['message_count'] == 15
    assert information['duration']['nanoseconds'] == 140_000_000
    topics = {t['topic_metadata']['name']: t for t in information['topics_with_message_count']}
    assert topics['/text']['message_count'] == 5


def test_when_a_bag_is_closed_expect_all_that_rosbag2_reads_for_each_qos(written):
    profiles = [described(p) for p in vars(qos).values() if isinstance(p, QoSProfile)]
    assert len(profiles) > 5
    text = installed_definition('std_msgs/msg/String')
    written.writer.add_topic(Topic('/unheard', 'std_msgs/msg/String', *text, tuple(profiles)))
    folder = written.close()
    assert_played_by_rosbag2(folder)
    (unheard,) = [t for t in read_information(folder)['topics_with_message_count']
                  if t['topic_metadata']['name'] == '/unheard']  # fmt: skip
    assert unheard['topic_metadata']['offered_qos_profiles'] == profiles


@pytest.mark.parametrize('key', [
    'version', 'storage_identifier', 'duration', 'starting_time', 'message_count',
    'topics_with_message_count', 'compression_format', 'compression_mode', 'relative_file_paths',
    'files', 'custom_data', 'ros_distro',
])  # fmt: skip
def test_when_a_key_of_version_9_is_missing_expect_the_check_of_the_format_to_fail(written, key):
    information = read_information(written.close())
    check_information(information)
    del information[key]
    with pytest.raises(KeyError, match=key):
        check_information(information)


@pytest.mark.parametrize(('distro', 'said'), [('rolling', 'rolling'), ('', '')])
def test_when_a_distribution_records_expect_it_named(tmp_path, distro, said):
    writer = BagWriter(tmp_path / 'run', distro=distro)
    writer.close()
    assert read_information(writer.folder)['ros_distro'] == said


def read_information(folder):
    return yaml.safe_load((folder / 'metadata.yaml').read_text())['rosbag2_bagfile_information']


def test_when_a_bag_is_read_expect_every_message_in_order_and_what_lies_beside(written):
    written.writer.add_attachment('receipt.json', 'application/json', b'{}', written.now_ns)
    bag = Bag(written.close())
    messages = list(bag.messages())
    assert [bag.decode(m).seq for m in messages if m.topic == '/action_chunk'] == list(range(5))
    assert [m.log_ns for m in messages] == sorted(m.log_ns for m in messages)
    assert bag.broken == ''
    assert bag.attachments == {'receipt.json': b'{}'}
    assert bag.metadata['vla_deploy.recording'] == {'robot': 'franka'}
    only = Bag(bag.path).messages({'std_msgs/msg/String'})
    assert {m.topic for m in only} == {'/text'}


def test_when_a_bag_was_not_closed_expect_what_was_flushed_and_a_line_that_says_so(written):
    written.writer.flush()
    written.add('/text', String(data='lost'))
    bag = Bag(written.writer.folder)
    assert len(list(bag.messages())) == 15
    assert 'run_0.mcap: was not closed' in bag.broken
    assert 'last second is lost' in bag.broken


@pytest.mark.parametrize('missing', [1, 8, 40, 100])
def test_when_a_file_ends_anywhere_expect_the_whole_chunks_before_it(written, missing):
    written.writer.flush()
    written.add('/text', String(data='in the chunk that is cut'))
    written.writer.flush()
    data = written.writer.file.read_bytes()
    written.writer.file.write_bytes(data[: len(data) - missing])
    bag = Bag(written.writer.folder)
    assert len(list(bag.messages())) in (15, 16)
    assert 'was not closed' in bag.broken


def test_when_bytes_within_a_chunk_changed_expect_the_reader_to_stop_there(written):
    written.writer.flush()
    data = bytearray(written.writer.file.read_bytes())
    at = data.index(b'number 0') if b'number 0' in data else len(data) // 2
    data[at] ^= 1
    written.writer.file.write_bytes(data)
    bag = Bag(written.writer.folder)
    assert list(bag.messages()) == []
    assert bag.broken


@pytest.mark.parametrize('content', [None, b'', b'no bag at all'])
def test_when_there_is_no_bag_expect_an_error_that_names_the_path(tmp_path, content):
    folder = tmp_path / 'empty'
    folder.mkdir()
    if content is not None:
        (folder / 'a.mcap').write_bytes(content)
    with pytest.raises(BagError, match='empty'):
        list(Bag(folder).messages())


def test_when_the_disk_is_full_expect_what_was_written_since_the_last_flush_kept(written):
    limit = int(3.5 * CHUNK_BYTES)

    def fill():
        noise = np.random.default_rng(0)
        while True:
            image = noise.integers(0, 256, 100_000, np.uint8).tobytes()
            written.add('/image/front', Image(data=image))

    with no_file_beyond(limit):
        with pytest.raises(OSError, match='large'):
            fill()
        written.writer.abandon()
    assert written.writer.file.stat().st_size > limit - 1.2 * CHUNK_BYTES
    assert sum(m.topic == '/image/front' for m in Bag(written.writer.folder).messages()) >= 30


def test_when_the_disk_is_full_expect_the_file_cut_where_it_was_whole(written):
    written.writer.flush()
    size = written.writer.bytes_written
    with no_file_beyond(size + 100):
        noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
        written.add('/image/front', Image(data=noise))
        with pytest.raises(OSError, match='large'):
            written.writer.flush()
        written.writer.abandon()
    assert written.writer.file.stat().st_size == size
    assert len(list(Bag(written.writer.folder).messages())) == 15
