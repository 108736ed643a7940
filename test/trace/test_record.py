# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder's queue and its writing thread."""

import threading
import time

import pytest
from bags import independent, no_file_beyond
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from vla_deploy.trace.bag import Bag
from vla_deploy.trace.bag_writer import CHUNK_BYTES, BagWriter, Topic
from vla_deploy.trace.definitions import installed_definition
from vla_deploy.trace.record import Recorder

TOPIC = Topic('/text', 'std_msgs/msg/String', *installed_definition('std_msgs/msg/String'))
DATA = serialize_message(String(data='x' * 100))


@pytest.fixture
def recorder(tmp_path):
    """Return a function that starts a recorder into tmp_path/run; it is closed at the end."""
    started = []

    def start(queue_bytes=10_000, flush_period_s=60.0, compression='lz4'):
        writer = BagWriter(tmp_path / 'run', compression)
        started.append(Recorder(writer, queue_bytes, flush_period_s))
        return started[-1]

    yield start
    for each in started:
        each.close()


def wait(condition):
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def texts(folder):
    return [message.topic for message in Bag(folder).messages()]


def test_when_the_queue_is_full_expect_drops_counted_and_what_must_be_kept_taken(recorder):
    recording, go_on = recorder(queue_bytes=3 * len(DATA)), threading.Event()
    entered = threading.Event()

    def slow_disk(data):
        entered.set()
        go_on.wait(20)
        return data

    assert recording.offer(TOPIC, 1, 1, DATA, slow_disk)
    assert entered.wait(20)
    taken = [recording.offer(TOPIC, i, i, DATA) for i in range(2, 7)]
    assert taken == [True, True, False, False, False]
    assert recording.waiting_bytes == 3 * len(DATA)
    assert recording.counts.dropped == {'/text': 3}
    assert 'dropped, the queue was full: /text' in recording.problem()
    assert recording.offer(TOPIC, 9, 9, DATA, keep=True)
    go_on.set()
    wait(lambda: recording.counts.recorded.get('/text') == 4)
    assert recording.offer(TOPIC, 10, 10, DATA)


def test_when_the_transport_lost_messages_expect_it_said(recorder):
    recording = recorder()
    assert recording.problem() == ''
    recording.add_lost('/image', 2)
    recording.add_lost('/image', 1)
    assert recording.problem() == '3 messages lost on the way here: /image'


@pytest.mark.parametrize('flush_period_s', [0.01, 60.0])
def test_when_the_time_has_come_expect_what_was_written_in_the_file(
    recorder, tmp_path, flush_period_s
):
    recording = recorder(flush_period_s=flush_period_s)
    recording.offer(TOPIC, 1, 1, DATA)
    wait(lambda: recording.counts.recorded)
    if flush_period_s < 1.0:
        wait(lambda: texts(tmp_path / 'run') == ['/text'])
    else:
        assert texts(tmp_path / 'run') == []


@pytest.mark.parametrize('compression', ['none', 'lz4', 'zstd'])
def test_when_compressed_expect_the_same_messages_and_a_file_that_says_how(
    recorder, tmp_path, compression
):
    recording = recorder(compression=compression)
    for number in range(50):
        recording.offer(TOPIC, number, number, DATA)
    recording.close()
    assert len(independent(tmp_path / 'run')['/text']) == 50
    data = (tmp_path / 'run' / 'run_0.mcap').read_bytes()
    assert (len(data) < 50 * len(DATA)) == (compression != 'none')
    assert (compression.encode() in data) == (compression != 'none')


def test_when_closed_expect_all_that_waited_in_the_bag_and_nothing_taken_after(
    recorder, tmp_path
):
    recording = recorder()
    for number in range(20):
        recording.offer(TOPIC, number, number, DATA)
    recording.close()
    assert texts(tmp_path / 'run') == ['/text'] * 20
    assert not recording.offer(TOPIC, 21, 21, DATA)


def test_when_the_disk_fails_expect_the_reason_and_no_more_taken(recorder, tmp_path):
    recording = recorder()

    def full(data):
        raise OSError(28, 'No space left on device')

    recording.offer(TOPIC, 1, 1, DATA, full)
    recording.offer(TOPIC, 2, 2, DATA)
    wait(lambda: recording.failure)
    assert 'run_0.mcap: No space left on device' in recording.problem()
    assert not recording.offer(TOPIC, 3, 3, DATA)
    assert recording.counts.dropped['/text'] >= 1


def test_when_the_disk_is_full_expect_each_message_counted_as_it_is_in_the_bag_or_not(
    recorder, tmp_path
):
    with no_file_beyond(int(2.5 * CHUNK_BYTES)):
        recording = recorder(queue_bytes=1 << 30, compression='none')
        for number in range(60):
            recording.offer(TOPIC, number, number, bytes(100_000))
        wait(lambda: recording.failure)
    kept = len(texts(tmp_path / 'run'))
    assert kept >= 20
    assert recording.counts.recorded == {'/text': kept}
    assert recording.counts.dropped == {'/text': 60 - kept}


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_when_the_writing_thread_ends_by_a_fault_expect_it_told_and_what_was_flushed_readable(
    recorder, tmp_path
):
    recording = recorder(flush_period_s=0.01)
    recording.offer(TOPIC, 1, 1, DATA)
    wait(lambda: texts(tmp_path / 'run') == ['/text'])

    def broken(data):
        raise KeyError('a fault of the program')

    recording.offer(TOPIC, 2, 2, DATA, broken)
    wait(lambda: recording.failure)
    assert 'run_0.mcap: the thread that writes it has ended' in recording.problem()
    assert not recording.offer(TOPIC, 3, 3, DATA)
    assert texts(tmp_path / 'run') == ['/text']
