# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A recorded run, computed again: the same to the bit with the same bundle, told apart with
another."""

import json
import shutil
import signal

import numpy as np
import pytest
from graph_harness import Graph

from vla_deploy.cli import replay
from vla_deploy.trace.bag import Bag
from vla_deploy.trace.replay import seen_chunks

PNG = b'\x89PNG'


@pytest.fixture(scope='module', params=['asynchronous', 'real_time_chunking'])
def run(request, reach_bundle, tmp_path_factory):
    """Folder of the bag of a run through the whole graph."""
    folder = tmp_path_factory.mktemp('run')
    graph = Graph(folder)
    try:
        recorder = graph.start('recorder', directory=str(folder / 'bags'),
                               bundle=str(reach_bundle))  # fmt: skip
        graph.start_sim_robot(image_rate_hz=15.0)
        graph.start_guard(log_folder=str(folder / 'logs'))
        graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard in control')
        graph.start_inference(reach_bundle, instruction='reach the red cube',
                              strategy=request.param)  # fmt: skip
        graph.wait(lambda: len(graph.chunks) >= 9, 'more chunks than the recorder may miss')
        for node in ('guard', 'inference'):  # an answer that got lost is asked for again
            name = f'parameters/{node}'.encode()
            graph.wait(lambda name=name: name in recorded(folder), f"the {node}'s parameters")
        # The guard first: its journal is whole then, and the recorder hears its end.
        for process in (*graph.processes[1:], recorder):
            process.send(signal.SIGINT)
            graph.wait_for_exit(process)
    finally:
        graph.close()
    (bag,) = (folder / 'bags').iterdir()
    return bag


def recorded(folder):
    return b''.join(path.read_bytes() for path in (folder / 'bags').glob('*/*.mcap'))


def report_of(bag, tmp_path, *options):
    target = tmp_path / 'report.json'
    code = replay.main([str(bag), '--output-json', str(target), *options])
    return code, json.loads(target.read_text())


def test_when_replayed_with_the_same_bundle_expect_no_difference_at_all(run, tmp_path):
    bag = run
    picture = tmp_path / 'both.png'
    code, report = report_of(bag, tmp_path, '--plot', str(picture))
    assert report['max_abs'] == 0.0
    assert len(report['chunks']) >= 6
    assert all(c['actions'] == 0.0 == c['raw'] for c in report['chunks'])
    assert report['guard']['differences'] == []
    assert report['guard']['steps'] > 100
    assert report['guard']['recorded_violations'] == report['guard']['replayed_violations']
    assert report['same_bundle']
    assert report['not_compared'] == []
    assert code == 0
    seen = list(seen_chunks(Bag(bag)))
    chunking = seen[0].message.strategy == 'real_time_chunking'
    assert any(chunk.message.guided_steps for chunk in seen) == chunking
    assert picture.read_bytes().startswith(PNG)


def test_when_one_weight_changed_expect_the_bundle_told_apart(
    run, changed_bundle, tmp_path, capsys
):
    bag = run

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
    code, _ = report_of(bag, tmp_path, '--bundle', str(other), '--diff', 'actions',
                        '--fail-on', 'actions=100')  # fmt: skip
    assert code == 0


def test_when_latency_must_be_shorter_than_nothing_expect_exit_code_1(run, tmp_path):
    bag = run
    code, report = report_of(bag, tmp_path, '--diff', 'latency', '--fail-on', 'latency=0')
    assert code == 1
    assert report['latency_ms']['replayed']['p95'] > 0
    assert report['guard']['steps'] == 0


def test_when_images_are_missing_expect_exit_code_3_that_says_so(run, tmp_path, capsys):
    bag = run
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
    bag = run
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


def test_when_there_is_no_bag_expect_exit_code_2(tmp_path, capsys):
    assert replay.main([str(tmp_path)]) == 2
    assert 'no bag' in capsys.readouterr().err

