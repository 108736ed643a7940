# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a bag lacks is named by `replay`, and never taken for equality. The policy here computes
what was recorded, so that only what is missing can make a difference."""

import json
from types import SimpleNamespace

import pytest
from bags import Written, chunk

from vla_deploy.cli import replay
from vla_deploy.core.chunk import Chunk
from vla_deploy.trace.replay_gaps import HeldChunks
from vla_deploy_msgs.msg import ActionChunk, RecorderStatus


class SamePolicy:
    """Computes every chunk as it was recorded."""

    model_sha256 = 'm' * 8
    contract = SimpleNamespace(
        action=SimpleNamespace(joints=('j',), control_mode='position'), period_s=0.1
    )

    def __init__(self, parameters, bundle=''):
        pass

    def infer(self, seen):
        return SimpleNamespace(
            chunk=SimpleNamespace(raw=seen.raw, actions=seen.actions), inference_s=0.01
        )


@pytest.fixture(autouse=True)
def same_policy(monkeypatch):
    monkeypatch.setattr('vla_deploy.ros.replayed_policy.ReplayedPolicy', SamePolicy)


def bag_of(folder, numbers, status=None, images='full'):
    """A bag of these (session, number), and of what its recorder said at last."""
    bag = Written(folder)
    bag.writer.add_metadata('parameters/inference', {})
    bag.writer.add_metadata('vla_deploy.recording', {'images': images})
    for session_id, seq in numbers:
        message = chunk(session_id, seq)
        message.control_mode = ActionChunk.CONTROL_MODE_POSITION
        bag.add('/action_chunk', message)
    if status is not None:
        bag.add('/recorder/status', RecorderStatus())
        bag.add('/recorder/status', status)
    return bag.close()


def replayed(bag, tmp_path, *options):
    target = tmp_path / 'report.json'
    code = replay.main([str(bag), '--diff', 'actions', '--output-json', str(target), *options])
    return code, json.loads(target.read_text())


def test_when_the_recorder_began_later_and_lost_nothing_expect_no_gap(tmp_path):
    bag = bag_of(tmp_path / 'bag', [('a', 4), ('a', 5), ('b', 0), ('b', 1)])
    code, report = replayed(bag, tmp_path)
    assert (code, report['not_compared'], report['same_bundle']) == (0, [], True)


def test_when_chunks_are_missing_between_others_expect_each_named_and_exit_code_3(
    tmp_path, capsys
):
    bag = bag_of(tmp_path / 'bag', [('a', 0), ('a', 1), ('a', 4), ('b', 7), ('b', 9)])
    code, report = replayed(bag, tmp_path)
    lines = [f'chunk {seq} of session {name}: is not in the bag'
             for name, seq in (('a', 2), ('a', 3), ('b', 8))]  # fmt: skip
    assert (code, report['max_abs'], report['not_compared']) == (3, 0.0, lines)
    told = capsys.readouterr().err
    assert all(f'replay: not compared: {line}' in told for line in lines)


def test_when_very_many_are_missing_in_a_row_expect_one_line_for_them(tmp_path):
    bag = bag_of(tmp_path / 'bag', [('a', 0), ('a', 2**64 - 1)])
    code, report = replayed(bag, tmp_path)
    assert code == 3
    assert report['not_compared'] == [
        f'chunks 1 to {2**64 - 2} of session a: are not in the bag'
    ]


@pytest.mark.parametrize(('dropped', 'lost'), [(2, 0), (0, 1)])
def test_when_the_recorder_counted_chunks_that_it_did_not_get_expect_exit_code_3(
    tmp_path, dropped, lost
):
    status = RecorderStatus(
        topics=['/joint_states', '/action_chunk'], topic_messages=[9, 2],
        topic_dropped=[5, dropped], topic_lost=[5, lost],
    )  # fmt: skip
    bag = bag_of(tmp_path / 'bag', [('a', 0), ('a', 1)], status)
    code, report = replayed(bag, tmp_path)
    (line,) = report['not_compared']
    assert f'{dropped} chunks that it dropped and {lost} that were lost' in line
    assert code == 3


def test_when_other_topics_alone_lost_messages_expect_exit_code_0(tmp_path):
    status = RecorderStatus(topics=['/joint_states', '/action_chunk'], topic_messages=[9, 2],
                            topic_dropped=[5, 0], topic_lost=[5, 0])  # fmt: skip
    assert replayed(bag_of(tmp_path / 'bag', [('a', 0)], status), tmp_path)[0] == 0


@pytest.mark.parametrize('images', ['full', 'hashed', 'none'])
@pytest.mark.parametrize('options', [[], ['--fail-on', 'none']], ids=['default', 'none'])
def test_when_a_bag_holds_no_chunk_expect_exit_code_3_and_no_bundle_called_the_same(
    tmp_path, capsys, images, options
):
    code, report = replayed(bag_of(tmp_path / 'bag', [], None, images), tmp_path, *options)
    assert (code, report['same_bundle'], report['max_abs']) == (3, None, None)
    assert report['not_compared'] == ['no chunk of the bag could be computed again']
    assert 'the same bundle' not in capsys.readouterr().out


def step_of(*chunks):
    """A step of the guard's journal in which these (session, number, ends) came."""
    return SimpleNamespace(inputs=SimpleNamespace(chunks=[
        Chunk(name, seq, 0, 0, 0, 0.1, 1, ('j',), [], ends_session=ends)
        for name, seq, ends in chunks
    ]))  # fmt: skip


def test_when_the_guard_took_chunks_that_the_bag_lacks_expect_those_of_its_sessions_named():
    held = HeldChunks({'a': {3, 5}})
    took = step_of(
        ('a', 2, False), ('a', 3, False), ('a', 4, False), ('a', 6, False), ('a', 7, True),
        ('b', 0, False),
    )  # fmt: skip
    assert list(held.gaps()) == ['chunk 4 of session a: is not in the bag']
    assert list(held.gaps_of(took)) == [
        f'chunk {seq} of session a: the guard took it, but it is not in the bag' for seq in (2, 6)
    ]
