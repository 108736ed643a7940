# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A recorded run, computed again: the same to the bit with the same bundle, told apart with
another."""

import io
import json
import shutil
import signal
import sys

import numpy as np
import pytest
from graph_harness import Graph
from PIL import Image as Pillow
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from vla_deploy.cli import replay
from vla_deploy.files import read_yaml, write_yaml
from vla_deploy.pipeline import bundle as bundles
from vla_deploy.ros.images import image_to_rgb
from vla_deploy.trace.bag import Bag
from vla_deploy.trace.bag_writer import BagWriter, Topic
from vla_deploy.trace.definitions import installed_definition
from vla_deploy.trace.digest import digest_topic, digester
from vla_deploy.trace.episodes import RECORDING
from vla_deploy.trace.repair import ROSBAG2
from vla_deploy.trace.replay import seen_chunks

PNG = b'\x89PNG'
SAID = {'/guard/status', '/joint_trajectory', '/action_chunk'}


class Run:
    """One run of the whole graph that was recorded: the bag's folder, and that of the journals."""

    def __init__(self, folder, bundle, strategy):
        graph = Graph(folder)
        self.logs = folder / 'logs'
        try:
            recorder = graph.start('recorder', directory=str(folder / 'bags'), bundle=str(bundle))
            graph.wait(lambda: 'records into' in recorder.output(), 'the recorder to listen')
            graph.start_sim_robot(image_rate_hz=15.0)
            graph.start_guard(log_folder=str(self.logs))
            graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard in control')
            graph.start_inference(bundle, strategy=strategy)
            for node in ('guard', 'inference'):  # an answer that got lost is asked for again
                name = f'parameters/{node}'.encode()
                graph.wait(lambda name=name: name in recorded(folder), f"the {node}'s parameters")
            # Only now, that the recorder has found inference, or it might miss the first chunk.
            graph.tell('reach the red cube')
            graph.wait(lambda: len(graph.chunks) >= 9, 'chunks')
            # The guard first: its journal is whole then, and the recorder hears its end.
            for process in (*graph.processes[1:], recorder):
                process.send(signal.SIGINT)
                graph.wait_for_exit(process)
        finally:
            graph.close()
        (self.bag,) = (folder / 'bags').iterdir()
        bag = Bag(self.bag)
        assert {bag.topics[message.topic].name for message in bag.messages()} >= SAID


@pytest.fixture(scope='module')
def run_with(reach_bundle, tmp_path_factory):
    """Return a function that gives the run of a strategy; each is made once."""
    made = {}

    def get(strategy):
        if strategy not in made:
            made[strategy] = Run(tmp_path_factory.mktemp('run'), reach_bundle, strategy)
        return made[strategy]

    return get


@pytest.fixture
def run(run_with):
    return run_with('asynchronous')


def recorded(folder):
    return b''.join(path.read_bytes() for path in (folder / 'bags').glob('*/*.mcap'))


def rewritten(
    bag, target, images='full', change=lambda topic, data: (topic, data), without=()
):
    """Write a bag anew, as if its recorder had been told to keep images otherwise; `change` gives
    the topic and the bytes of each image, or None for nothing. `without`: numbers of chunks that it
    had not got."""
    source, writer = Bag(bag), BagWriter(target)
    channels = {}
    for message in source.messages():
        topic, data = source.topics[message.topic], message.data
        if message.topic == '/image/front':
            topic, data = change(topic, data)
        if message.topic == '/action_chunk' and source.decode(message).seq in without:
            topic = None
        if topic is not None:
            if topic.name not in channels:
                channels[topic.name] = writer.add_topic(topic)
            writer.write(channels[topic.name], message.log_ns, message.publish_ns, data)
    for name, values in source.metadata.items():
        if name != ROSBAG2:
            writer.add_metadata(name, {**values, 'images': images} if name == RECORDING else values)
    writer.close()
    return target


def report_of(bag, tmp_path, *options):
    target = tmp_path / 'report.json'
    code = replay.main([str(bag), '--output-json', str(target), *options])
    return code, json.loads(target.read_text())


@pytest.mark.parametrize('strategy', ['asynchronous', 'real_time_chunking', 'ensembling'])
def test_when_replayed_with_the_same_bundle_expect_no_difference_at_all(
    run_with, tmp_path, strategy
):
    run = run_with(strategy)
    picture = tmp_path / 'both.png'
    code, report = report_of(run.bag, tmp_path, '--plot', str(picture))
    assert report['max_abs'] == 0.0
    assert len(report['chunks']) >= 6
    # What ensembling sends is a mean over several chunks: its own is compared in model space.
    sent = None if strategy == 'ensembling' else 0.0
    assert all((c['actions'], c['raw']) == (sent, 0.0) for c in report['chunks'])
    assert report['guard']['differences'] == []
    assert report['guard']['steps'] > 100
    assert report['guard']['recorded_violations'] == report['guard']['replayed_violations']
    assert report['same_bundle']
    assert report['not_compared'] == []
    assert code == 0
    seen = list(seen_chunks(Bag(run.bag)))
    assert {chunk.message.strategy for chunk in seen} == {strategy}
    assert any(c.message.guided_steps for c in seen) == (strategy == 'real_time_chunking')
    assert picture.read_bytes().startswith(PNG)


def test_when_one_weight_changed_expect_the_bundle_told_apart(
    run, changed_bundle, tmp_path, capsys
):
    bag = run.bag

    def change(folder):
        weights = np.fromfile(folder / 'weights.bin', np.float32)
        weights[np.argmax(np.abs(weights) > 0.01)] *= 1.5
        weights.tofile(folder / 'weights.bin')

    other = changed_bundle(change)
    code, report = report_of(bag, tmp_path, '--bundle', str(other))
    assert code == 1
    assert report['max_abs'] > 0.0
    assert not report['same_bundle']
    assert 'replay: differs: actions' in capsys.readouterr().err
    code, _ = report_of(bag, tmp_path, '--bundle', str(other), '--fail-on', 'none')
    assert code == 0
    code, report = report_of(bag, tmp_path, '--bundle', str(other), '--fail-on', 'guard')
    assert (code, report['guard']['differences'] != []) == (1, True)
    assert 'replay: differs: guard:' in capsys.readouterr().err
    code, _ = report_of(bag, tmp_path, '--bundle', str(other), '--diff', 'actions',
                        '--fail-on', 'actions=100')  # fmt: skip
    assert code == 0


def swapped_joints(contract):
    joints = contract['action']['joints']
    joints[0], joints[1] = joints[1], joints[0]


def slower(contract):
    contract['period_s'] *= 2


@pytest.mark.parametrize(
    ('alter', 'said'), [(swapped_joints, 'its joints are'), (slower, 'its period is')]
)
def test_when_only_the_contract_is_another_expect_actions_and_guard_to_differ(
    run, changed_bundle, tmp_path, capsys, alter, said
):
    def change(folder):
        contract = read_yaml(folder / bundles.CONTRACT)
        alter(contract)
        write_yaml(folder / bundles.CONTRACT, contract)

    other, picture = changed_bundle(change), tmp_path / 'both.png'
    options = ('--fail-on', 'actions=100', '--fail-on', 'guard', '--plot', str(picture))
    code, report = report_of(run.bag, tmp_path, '--bundle', str(other), *options)
    assert (code, report['max_abs']) == (1, float('inf'))
    assert report['guard']['differences'] != []
    told = capsys.readouterr().err
    for diff in ('actions', 'guard'):
        assert any(f'differs: {diff}' in t and said in t for t in told.splitlines())
    assert picture.read_bytes().startswith(PNG)


@pytest.mark.parametrize(('factor', 'expected'), [('0', 1), ('1e6', 0)])
def test_when_latency_may_be_so_much_longer_expect_the_factor_to_decide(
    run, tmp_path, factor, expected
):
    options = ('--diff', 'latency', '--fail-on', f'latency={factor}')
    code, report = report_of(run.bag, tmp_path, *options)
    assert code == expected
    assert report['latency_ms']['replayed']['p95'] > 0
    assert report['guard']['steps'] == 0


def test_when_only_the_guard_may_not_differ_and_does_not_expect_exit_code_0(run, tmp_path):
    code, report = report_of(run.bag, tmp_path, '--diff', 'guard', '--fail-on', 'guard')
    assert code == 0
    assert report['guard']['steps'] > 100


def test_when_chunks_were_taken_out_of_a_bag_expect_each_named_and_exit_code_3(
    run, tmp_path, capsys
):
    (session_id,) = {chunk.message.session_id for chunk in seen_chunks(Bag(run.bag))}
    bag = rewritten(run.bag, tmp_path / 'less', without=(0, 2, 3))
    code, report = report_of(bag, tmp_path)
    assert (code, report['max_abs'], report['guard']['differences']) == (3, 0.0, [])
    assert report['not_compared'] == [
        f'chunk 2 of session {session_id}: is not in the bag',
        f'chunk 3 of session {session_id}: is not in the bag',
        f'chunk 0 of session {session_id}: the guard took it, but it is not in the bag',
    ]
    assert f'replay: not compared: chunk 2 of session {session_id}' in capsys.readouterr().err


def digests(topic, data):
    return digest_topic(topic), digester(topic)(data)


@pytest.mark.parametrize(
    ('images', 'change'), [('hashed', digests), ('none', lambda topic, data: (None, b''))]
)
def test_when_images_were_not_kept_expect_the_guard_compared_and_one_line_for_all_chunks(
    run, tmp_path, capsys, images, change
):
    bag = rewritten(run.bag, tmp_path / images, images, change)
    code, report = report_of(bag, tmp_path)
    assert code == 3
    (line,) = report['not_compared']
    assert f"any chunk: images were recorded as '{images}'" in line
    assert 'record_images:=full' in line
    told = capsys.readouterr()
    assert f'replay: not compared: {line}' in told.err
    assert 'max_abs' not in told.out
    assert (report['max_abs'], report['chunks'], report['same_bundle']) == (None, [], True)
    assert report['guard']['steps'] > 100
    assert report['guard']['differences'] == []


def test_when_the_camera_was_compressed_expect_its_images_found_and_the_difference_they_make(
    run, tmp_path
):
    """JPEG loses a little, so that another chunk shows that these images were decoded."""
    type_name = 'sensor_msgs/msg/CompressedImage'
    compressed = Topic('/image/front/compressed', type_name, *installed_definition(type_name))

    def change(_topic, data):
        image = deserialize_message(data, Image)
        stream = io.BytesIO()
        Pillow.fromarray(image_to_rgb(image)).save(stream, 'JPEG')
        message = CompressedImage(header=image.header, format='jpeg', data=stream.getvalue())
        return compressed, serialize_message(message)

    bag = rewritten(run.bag, tmp_path / 'compressed', 'full', change)
    code, report = report_of(bag, tmp_path, '--diff', 'actions', '--fail-on', 'actions=0.5')
    assert code == 0
    assert len(report['chunks']) >= 6
    assert report['max_abs'] > 0.0


def test_when_the_journal_was_moved_expect_it_named_and_another_one_refused(
    run, tmp_path, capsys
):
    (log,) = run.logs.iterdir()
    moved = tmp_path / 'elsewhere'
    shutil.move(log, moved)
    try:
        assert replay.main([str(run.bag), '--diff', 'guard']) == 2
        assert 'name it by --journal' in capsys.readouterr().err
        code, report = report_of(run.bag, tmp_path, '--diff', 'guard', '--journal', str(moved))
        assert (code, report['journal']) == (0, str(moved))
        assert report['guard']['steps'] > 100
        other = tmp_path / 'other'
        other.mkdir()
        (first,) = moved.iterdir()
        lines = first.read_bytes().splitlines(keepends=True)
        (other / first.name).write_bytes(b''.join(lines[: len(lines) // 2]))
        assert replay.main([str(run.bag), '--diff', 'guard', '--journal', str(other)]) == 2
        assert f'{other}: ' in capsys.readouterr().err
    finally:
        shutil.move(moved, log)


def test_when_images_are_missing_expect_exit_code_3_that_says_so(run, tmp_path, capsys):
    bag = run.bag
    copy = tmp_path / 'cut'
    shutil.copytree(bag, copy)
    (file,) = copy.glob('*.mcap')
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * 0.97)])  # it ends within its index or its last chunk
    assert replay.main([str(copy), '--diff', 'actions']) == 3
    assert 'replay: not compared:' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--bundle', 'NO/bundle'], 'NO/bundle'),
        (['--journal', 'NO/log', '--diff', 'guard'], 'NO/log'),
    ],
)
def test_when_something_named_is_not_there_expect_exit_code_2_and_one_line(
    run, tmp_path, capsys, options, said
):
    bag = run.bag
    assert replay.main([str(bag), *[o.replace('NO', str(tmp_path)) for o in options]]) == 2
    (line,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith('replay:')]
    assert said.replace('NO', str(tmp_path)) in line


@pytest.mark.parametrize(
    'options', [['--fail-on', 'speed'], ['--fail-on', 'latency'], ['--fail-on', 'actions=-1'],
                ['--diff', 'actions', '--fail-on', 'guard'], ['--fail-on', 'guard=1']],
)  # fmt: skip
def test_when_an_option_makes_no_sense_expect_exit_code_2(tmp_path, options, capsys):
    with pytest.raises(SystemExit) as ended:
        replay.main([str(tmp_path), *options])
    assert ended.value.code == 2
    assert '--fail-on' in capsys.readouterr().err


def test_when_there_is_nothing_to_draw_with_expect_it_said_before_anything_is_computed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.delitem(sys.modules, 'vla_deploy.trace.replay_plot', raising=False)
    assert replay.main([str(tmp_path / 'no bag'), '--plot', str(tmp_path / 'a.png')]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('pip install matplotlib')


def test_when_there_is_no_bag_expect_exit_code_2(tmp_path, capsys):
    assert replay.main([str(tmp_path)]) == 2
    assert 'no bag' in capsys.readouterr().err

