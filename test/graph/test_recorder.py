# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder in a running graph: all is in the bag, nothing is left out in silence, and what was
written is readable however the recorder ends."""

import hashlib
import json
import signal
import sys
import time
from pathlib import Path

import pytest
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from fake_robot import FakeRobot
from inference_waits import HOLD, PATIENT, Instructor, listeners, next_chunk
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from vla_deploy.ros import qos
from vla_deploy.trace.bag import Bag
from vla_deploy.trace.episodes import read_contents
from vla_deploy_msgs.msg import RecorderStatus

sys.path.insert(0, str(Path(__file__).parents[1] / 'trace'))

from bags import independent
from rosbag2_format import assert_played_by_rosbag2

TEXTS = 'some/texts'


@pytest.fixture
def recorder(graph, tmp_path):
    """Return a function that starts a recorder of topics alone, and waits until it records."""

    def start(**parameters):
        graph.recorders = graph.listen(RecorderStatus, 'recorder/status', qos.STATUS)
        given = {'directory': str(tmp_path / 'bags'), 'nodes': ['nobody'], **parameters}
        process = graph.start('recorder', **given)
        graph.wait(lambda: graph.recorders, 'the status of the recorder')
        return process, Path(graph.recorders[-1].bag)

    return start


def publish(graph, publisher, messages, then):
    """Publish messages, one every 20 ms, until `then` holds; return those that were sent."""
    graph.wait(lambda: publisher.get_subscription_count() > 0, 'somebody to hear it')
    sent = []

    def send():
        message = next(messages)
        publisher.publish(message)
        sent.append(message)

    timer = graph.node.create_timer(0.02, send)
    graph.wait(lambda: then(sent), 'enough messages')
    graph.node.destroy_timer(timer)
    return sent


def numbered():
    number = 0
    while True:
        yield String(data=str(number))
        number += 1


def end(graph, process, exit_code=0):
    process.send(signal.SIGINT)
    assert graph.wait_for_exit(process) == exit_code
    assert 'Traceback' not in process.output()


def metadata(tmp_path):
    """The records of texts of a bag that is being written."""
    (folder,) = (tmp_path / 'bags').iterdir()
    bag = Bag(folder)
    for _ in bag.messages(()):
        pass
    return bag.metadata


def topics_of(folder):
    """Return how metadata.yaml describes each topic."""
    document = yaml.safe_load((folder / 'metadata.yaml').read_text())
    topics = document['rosbag2_bagfile_information']['topics_with_message_count']
    return {t['topic_metadata']['name']: t['topic_metadata'] for t in topics}


def durabilities(described, name):
    return {profile['durability'] for profile in described[name]['offered_qos_profiles']}


def counted(statuses):
    """Return the topics of which the newest status counts a message."""
    if not statuses:
        return set()
    newest = statuses[-1]
    return {t for t, count in zip(newest.topics, newest.topic_messages, strict=True) if count}


def test_when_a_bring_up_is_recorded_expect_all_that_was_said_in_the_bag(
    graph, reach_bundle, tmp_path
):
    said = {'/image/front', '/execution_state', '/guard/status', '/inference/status',
            '/recorder/status', '/diagnostics'}  # fmt: skip
    up = graph.run(
        sys.executable, '-m', 'vla_deploy.cli.up', 'franka', 'sim:=true', 'record:=true',
        f'bundle:={reach_bundle}', f'record_directory:={tmp_path}/bags',
        'instruction:=reach the red cube',
    )  # fmt: skip
    graph.wait(lambda: len(graph.chunks) > 5, 'chunks', timeout_s=90)
    graph.wait(lambda: graph.guard.state_name == 'ARMED', 'the guard to execute')
    graph.wait(lambda: 'parameters/inference' in metadata(tmp_path), 'parameters in the bag')
    statuses = graph.listen(RecorderStatus, 'recorder/status', qos.STATUS)
    graph.wait(lambda: said <= counted(statuses), 'a message of each topic in the bag')
    up.send(signal.SIGINT)
    assert graph.wait_for_exit(up) == 0
    (folder,) = (tmp_path / 'bags').iterdir()
    assert_played_by_rosbag2(folder)
    described = topics_of(folder)
    assert [name for name, topic in described.items() if not topic['offered_qos_profiles']] == []
    assert durabilities(described, '/guard/status') == {'transient_local'}
    assert durabilities(described, '/joint_states') == {'volatile'}
    heard = independent(folder)
    told = {message.seq for message in graph.chunks}
    assert told <= {message.seq for message in heard['/action_chunk']}
    assert len(heard['/joint_trajectory']) > 20
    assert len(heard['/joint_states']) > 50
    assert said <= set(heard)
    bag = Bag(folder)
    count = sum(1 for _ in bag.messages())
    assert count == sum(len(messages) for messages in heard.values())
    assert bag.broken == ''
    receipt = json.loads((reach_bundle / 'receipt.json').read_text())
    assert json.loads(bag.attachments['receipt.json']) == receipt
    assert {'contract.yaml', 'robot.urdf', 'joint_limits.yaml'} <= set(bag.attachments)
    assert json.loads(bag.metadata['parameters/guard']['joint_names'])[0] == 'fr3_joint1'
    assert json.loads(bag.metadata['parameters/inference']['bundle']) == str(reach_bundle)
    topics = json.loads(bag.metadata['vla_deploy.recording']['topics'])
    assert topics['image/front'] == '/image/front'
    (episode,) = read_contents(bag).episodes
    assert episode.task == 'reach the red cube'
    planned = [message for message in heard['/action_chunk'] if message.steps]
    assert episode.chunks == len(planned) == len(episode.latency_ms)
    assert read_contents(bag).robot == 'franka'


def test_when_goals_end_expect_each_episode_to_have_the_result_of_its_own(
    graph, recorder, reach_bundle
):
    robot, instructor = FakeRobot(graph, ['front'], guard_state=HOLD), Instructor(graph)
    process, folder = recorder(nodes=['inference'], images='none')
    graph.start_inference(reach_bundle, backend='stub', **PATIENT)
    status = '/execute_instruction/_action/status'
    graph.wait(lambda: 'recorder' in listeners(graph, status), 'the recorder on the goals')
    graph.wait(lambda: graph.policy.health_name in ('ready', 'degraded'), 'inference to serve')
    replaced = instructor.send('reach red')
    next_chunk(graph)
    done = instructor.send('reach blue', max_chunks=2)
    assert instructor.result(done)[1].termination_reason == 'max_chunks'
    graph.wait(lambda: status in counted(graph.recorders), 'the goals in the bag')
    robot.leave()
    end(graph, process)
    episodes = {e.session_id: (e.task, e.result) for e in read_contents(Bag(folder)).episodes}
    assert episodes[bytes(replaced.goal_id.uuid).hex()] == ('reach red', 'failed')
    assert episodes[bytes(done.goal_id.uuid).hex()] == ('reach blue', 'success')


def test_when_the_recorder_is_killed_expect_at_most_the_last_second_lost(graph, recorder):
    publisher = graph.node.create_publisher(String, TEXTS, qos.COMMAND)
    process, folder = recorder(topics=[TEXTS])
    times = []
    sent = publish(
        graph, publisher, numbered(),
        lambda sent: times.append((time.monotonic(), len(sent))) or len(sent) >= 150,
    )  # fmt: skip
    killed_s = time.monotonic()
    process.kill()
    bag = Bag(folder)
    numbers = [int(bag.decode(m).data) for m in bag.messages() if m.topic == f'/{TEXTS}']
    before = max(count for at, count in times if at < killed_s - 1.0 - 0.5)  # and some for a load
    assert len(sent) >= 150
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[-1] + 1 >= before
    assert 'was not closed' in bag.broken
    assert 'last second is lost' in bag.broken


def test_when_a_latched_topic_and_a_plain_one_are_recorded_expect_each_message_once(
    graph, recorder
):
    latched = graph.node.create_publisher(String, TEXTS, qos.STATUS)
    latched.publish(String(data='before'))
    process, folder = recorder(topics=[TEXTS])
    publish(graph, latched, numbered(), lambda sent: len(sent) >= 20)
    graph.wait(lambda: graph.recorders[-1].messages > 20, 'the messages in the bag')
    end(graph, process)
    assert [m.data for m in independent(folder)[f'/{TEXTS}']][:3] == ['before', '0', '1']


def image_source(graph, size=100_000):
    """A publisher of images and an endless stream of them."""
    publisher = graph.node.create_publisher(Image, 'image/front', qos.COMMAND)

    def images():
        number = 0
        while True:
            image = Image(height=1, width=size, step=size, encoding='mono8')
            image.header.frame_id = 'camera'
            image.data = bytes([number % 256]) * size
            yield image
            number += 1

    return publisher, images()


def test_when_the_queue_is_full_expect_the_drop_in_status_diagnostics_and_bag(graph, recorder):
    publisher, images = image_source(graph)
    diagnostics = graph.listen(DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)
    process, folder = recorder(topics=['image/front'], queue_mb=0.05)
    publish(graph, publisher, images, lambda sent: graph.recorders[-1].dropped > 3)
    status = graph.recorders[-1]
    assert status.recording
    assert list(status.topics).index('/image/front') == 0
    assert status.topic_dropped[0] == status.dropped
    assert 'dropped, the queue was full: /image/front' in status.reason
    graph.wait(
        lambda: any(s.level == DiagnosticStatus.WARN for d in diagnostics for s in d.status),
        'a warning among the diagnostics',
    )
    end(graph, process)
    heard = independent(folder)
    assert '/image/front' not in heard
    assert max(m.dropped for m in heard['/recorder/status']) > 3


@pytest.mark.parametrize('images', ['hashed', 'none'])
def test_when_images_are_not_kept_expect_digests_or_nothing(graph, recorder, images):
    publisher, stream = image_source(graph, 1000)
    texts = graph.node.create_publisher(String, TEXTS, qos.STATUS)
    texts.publish(String(data='also'))
    process, folder = recorder(nodes=['watcher'], images=images)
    publish(graph, texts, numbered(), lambda sent: len(sent) >= 5)
    if images == 'hashed':
        sent = publish(graph, publisher, stream, lambda sent: len(sent) >= 10)
        graph.wait(lambda: '/image/front/digest' in graph.recorders[-1].topics, 'digests')
    end(graph, process)
    heard = independent(folder)
    assert '/image/front' not in heard
    assert f'/{TEXTS}' in heard
    assert ('/image/front/digest' in heard) == (images == 'hashed')
    if images == 'hashed':
        digests = {hashlib.sha256(bytes(m.data)).hexdigest() for m in sent}
        first = heard['/image/front/digest'][0]
        assert first.sha256 in digests
        assert (first.size, first.header.frame_id) == (1000, 'camera')


def test_when_the_disk_is_full_expect_it_said_the_node_alive_and_the_bag_readable(
    graph, tmp_path
):
    publisher, images = image_source(graph)
    graph.recorders = graph.listen(RecorderStatus, 'recorder/status', qos.STATUS)
    limited = (
        'import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); '
        'resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000)); '
        'from vla_deploy.nodes.recorder import main; sys.exit(main())'
    )
    process = graph.run(
        sys.executable, '-c', limited, '--ros-args', '-p', f'directory:={tmp_path}/bags',
        '-p', 'nodes:=[nobody]', '-p', 'topics:=[image/front]', '-p', 'compression:=none',
    )  # fmt: skip
    publish(graph, publisher, images,
            lambda sent: graph.recorders and not graph.recorders[-1].recording)  # fmt: skip
    status = graph.recorders[-1]
    assert 'File too large' in status.reason
    assert process.exit_code is None
    graph.wait(lambda: graph.recorders[-1].dropped > 0, 'the drops to be counted')
    end(graph, process, exit_code=1)
    bag = Bag(Path(status.bag))
    assert sum(m.topic == '/image/front' for m in bag.messages()) >= 5
    assert 'was not closed' in bag.broken


@pytest.fixture
def lingering(graph, recorder):
    """Return a function that starts a recorder of a node that is there, and interrupts it; it gives
    the recorder's process, the bag's folder, the node and its publisher of texts."""

    def start(linger_s):
        companion = rclpy.create_node('companion', context=graph.context)
        texts = companion.create_publisher(String, TEXTS, qos.COMMAND)
        process, folder = recorder(nodes=['companion'], linger_s=linger_s)
        graph.wait(lambda: recorder_hears(graph, f'/{TEXTS}'), 'the recorder to hear its texts')
        process.send(signal.SIGINT)
        return process, folder, companion, texts

    return start


def test_when_interrupted_while_recorded_nodes_are_there_expect_it_to_go_on_until_they_are_gone(
    graph, lingering
):
    process, folder, companion, texts = lingering(60.0)
    before = len(graph.recorders)
    sent = publish(graph, texts, numbered(), lambda _: len(graph.recorders) >= before + 3)
    assert process.exit_code is None
    companion.destroy_node()
    assert graph.wait_for_exit(process) == 0
    assert {m.data for m in sent} == {m.data for m in independent(folder)[f'/{TEXTS}']}


@pytest.mark.parametrize(('linger_s', 'another'), [(0.0, False), (0.5, False), (60.0, True)])
def test_when_interrupted_expect_it_to_go_on_no_longer_than_linger_s_or_another_signal(
    graph, lingering, linger_s, another
):
    process, folder, companion, _ = lingering(linger_s)
    if another:
        before = len(graph.recorders)
        graph.wait(lambda: len(graph.recorders) >= before + 3, 'it to go on')
        process.send(signal.SIGINT)
    assert graph.wait_for_exit(process) == 0
    assert companion.get_name() == 'companion'  # it was there all the time
    assert [message.topic for message in Bag(folder).messages()]
    assert Bag(folder).broken == ''


def test_when_a_camera_is_compressed_expect_that_topic_heard_instead_of_the_raw_one(
    graph, recorder, reach_bundle
):
    for kind, name in ((Image, 'image/front'), (CompressedImage, 'image/front/compressed')):
        graph.node.create_publisher(kind, name, qos.SENSOR)
    recorder(bundle=str(reach_bundle), compressed_cameras=['front'])
    graph.wait(lambda: recorder_hears(graph, '/image/front/compressed'), 'the recorder to hear it')
    assert not graph.node.get_subscriptions_info_by_topic('/image/front')


def test_when_a_camera_that_is_not_there_is_to_be_compressed_expect_exit_code_2_and_its_name(
    graph, tmp_path, reach_bundle
):
    process = graph.start('recorder', directory=str(tmp_path / 'bags'), bundle=str(reach_bundle),
                          compressed_cameras=['front', 'back'])  # fmt: skip
    assert graph.wait_for_exit(process) == 2
    (line,) = process.error_lines()
    assert "'compressed_cameras' names back; the bundle has front" in line
    assert not (tmp_path / 'bags').exists()


def test_when_the_bag_cannot_be_made_expect_exit_code_2_and_one_line(graph, tmp_path):
    (tmp_path / 'file').write_text('')
    process = graph.start('recorder', directory=str(tmp_path / 'file'))
    assert graph.wait_for_exit(process) == 2
    (line,) = process.error_lines()
    assert str(tmp_path / 'file') in line


def test_when_a_recorder_alone_hears_the_commands_expect_the_guard_not_to_take_it_for_a_robot(
    graph, recorder
):
    for subscription in list(graph.node.subscriptions):
        if subscription.topic_name == '/joint_trajectory':
            graph.node.destroy_subscription(subscription)  # the watcher's own
    robot = FakeRobot(graph)
    graph.start_guard(auto_arm=False)
    recorder(nodes=['guard'])
    graph.wait(lambda: '/execution_state' in graph.recorders[-1].topics, 'the recorder to hear it')
    graph.wait(lambda: recorder_hears(graph, '/joint_trajectory'), 'the recorder on the commands')
    answer = graph.trigger('guard/arm')
    robot.leave()
    assert not answer.success
    assert answer.message == 'nobody subscribes to the command topic'


def recorder_hears(graph, topic):
    return listeners(graph, topic) == {'recorder'}
