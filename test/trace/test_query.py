# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes are found, added up and labelled over many bags."""

import csv
import hashlib
import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from action_msgs.msg import GoalStatus, GoalStatusArray
from bags import Written, chunk, independent
from rosbag2_format import assert_played_by_rosbag2
from std_msgs.msg import String

from vla_deploy.cli import traces
from vla_deploy.trace import index
from vla_deploy.trace.bag import Bag
from vla_deploy.trace.bag_writer import BagWriter
from vla_deploy.trace.episodes import read_contents
from vla_deploy_msgs.msg import GuardStatus, PolicyStatus, Violation

DAY_NS = 86_400_000_000_000


def goal_id(name):
    """The id of a goal, which its session bears."""
    return hashlib.md5(name.encode()).digest()


def goal(name, status):
    ended = GoalStatus(status=status)
    ended.goal_info.goal_id.uuid = list(goal_id(name))
    return GoalStatusArray(status_list=[ended])


def bags(rows):
    """The names of the bags that rows are of."""
    return [Path(row['bag']).name for row in rows]


def write(folder, name, task='reach red', result=None, robot='franka', model='abc', days_ago=0,
          latencies=(0.02, 0.04)):  # fmt: skip
    bag = Written(folder / name, robot, time.time_ns() - days_ago * DAY_NS)
    for seq, latency_s in enumerate(latencies):
        bag.add('/action_chunk', chunk(goal_id(name).hex(), seq, task, latency_s, model))
    if result is not None:
        bag.add('/execute_instruction/_action/status', goal(name, result))
    return bag.close()


@pytest.fixture
def folder(tmp_path):
    """Four bags, one in a folder of its own."""
    folder = tmp_path / 'traces'
    write(folder, 'one', result=GoalStatus.STATUS_SUCCEEDED)
    write(folder, 'two', result=GoalStatus.STATUS_ABORTED, days_ago=3, latencies=(0.1,))
    write(folder, 'three', task='reach blue', model='def', robot='ur5', days_ago=10)
    write(folder / 'below', 'four', task='Reach RED again', result=GoalStatus.STATUS_CANCELED)
    return folder


@pytest.fixture
def run(folder, capsys):
    """Return what a verb over the folder prints, or the rows that it writes as JSON."""

    def call(verb, *options, rows=False):
        target = folder.parent / 'rows.json'
        more = ['--output', str(target)] if rows else []
        assert traces.main([verb, '--dir', str(folder), *options, *more]) == 0
        return json.loads(target.read_text()) if rows else capsys.readouterr().out

    return call


@pytest.mark.parametrize(
    ('options', 'sessions'),
    [
        ([], ['one', 'four', 'two', 'three']),
        (['--since', '7d'], ['one', 'four', 'two']),
        (['--since', '2000-01-01'], ['one', 'four', 'two', 'three']),
        (['--since', '99999999999w'], ['one', 'four', 'two', 'three']),
        (['--task', 'red'], ['one', 'four', 'two']),
        (['--status', 'failed'], ['two']),
        (['--status', 'success'], ['one']),
        (['--status', 'unknown'], ['four', 'three']),
        (['--model', 'de'], ['three']),
        (['--robot', 'ur5'], ['three']),
        (['--limit', '2'], ['one', 'four']),
    ],
)
def test_when_queried_expect_the_episodes_asked_for_newest_first(run, options, sessions):
    found = bags(run('query', *options, rows=True))
    assert sorted(found) == sorted(sessions)
    if '--limit' not in options:
        assert found[-1] == sessions[-1]


@pytest.mark.parametrize('text', ['greife DAS SCHÄLCHEN', 'schälchen', 'GREIFE', 'STRASSE'])
def test_when_a_task_has_letters_beyond_ascii_expect_it_found_in_whatever_case(
    run, folder, text
):
    write(folder, 'german', task='Greife das Schälchen in der Straße')
    assert bags(run('query', '--task', text, rows=True)) == ['german']


def test_when_queried_without_an_output_expect_a_table(run):
    lines = run('query', '--robot', 'ur5').splitlines()
    assert lines[0].split()[:4] == ['begin', 'robot', 'task', 'status']
    assert 'reach blue' in lines[1]
    assert run('query', '--robot', 'nobody').strip() == 'no episodes'


def test_when_written_as_csv_expect_the_same_rows_as_json(run, folder, tmp_path):
    target = tmp_path / 'rows.csv'
    assert traces.main(['query', '--dir', str(folder), '--output', str(target)]) == 0
    with target.open() as file:
        rows = list(csv.DictReader(file))
    assert [row['session_id'] for row in rows] == [
        row['session_id'] for row in run('query', rows=True)
    ]


@pytest.mark.parametrize('verb', [['query'], ['summary', '--by', 'task']])
def test_when_nothing_is_found_expect_a_csv_with_the_same_columns_as_ever(folder, tmp_path, verb):
    heads = []
    for robot in ('franka', 'nobody'):
        target = tmp_path / f'{robot}.csv'
        options = ['--dir', str(folder), '--robot', robot, '--output', str(target)]
        assert traces.main([*verb, *options]) == 0
        heads.append(target.read_text().splitlines()[0])
    assert heads[0] == heads[1]


def test_when_summed_by_task_expect_rates_of_the_judged_with_interval_and_latencies(run):
    red, again, blue = (
        {row['task']: row for row in run('summary', '--by', 'task', rows=True)}[task]
        for task in ('reach red', 'Reach RED again', 'reach blue')
    )
    assert (red['episodes'], red['judged'], red['success_rate']) == (2, 2, 0.5)
    assert (red['low'], red['high']) == (0.0945, 0.9055)  # Wilson, 1 of 2
    assert red['max_ms'] == pytest.approx(100)
    assert red['p50_ms'] == pytest.approx(40)
    assert (again['judged'], again['success_rate']) == (0, None)
    assert blue['p50_ms'] == pytest.approx(30)


@pytest.mark.parametrize(('by', 'groups'), [('model', 2), ('robot', 2), ('day', 3), ('task', 3)])
def test_when_summed_by_something_else_expect_its_groups(run, by, groups):
    assert len(run('summary', '--by', by, rows=True)) == groups
    assert 'success_rate' in run('summary', '--by', by)


def test_when_labelled_expect_the_label_before_the_action_s_result(run, folder, capsys):
    run('query')
    assert traces.main(['label', str(folder / 'one'), '--failure']) == 0
    assert "'reach red': failed" in capsys.readouterr().out
    assert set(bags(run('query', '--status', 'failed', rows=True))) == {'one', 'two'}
    assert traces.main(['label', str(folder / 'one'), '--clear']) == 0
    assert [r['said_by'] for r in run('query', '--status', 'success', rows=True)] == ['action']


def test_when_a_bag_holds_several_episodes_expect_a_number_asked_for(tmp_path, capsys):
    bag = Written(tmp_path / 'two')
    bag.add('/action_chunk', chunk('a', task='first'))
    bag.add('/action_chunk', chunk('b', task='second'))
    folder = str(bag.close())
    assert traces.main(['label', folder, '--success']) == 2
    assert 'holds 2 episodes: give --episode' in capsys.readouterr().err
    assert traces.main(['label', folder, '--success', '--episode', '1']) == 0
    assert "'second'" in capsys.readouterr().out
    for number in ('2', '-1'):
        assert traces.main(['label', folder, '--success', '--episode', number]) == 2
        assert f'holds no episode {number}, only 2, from 0' in capsys.readouterr().err


def test_when_a_goal_is_replaced_expect_its_own_episode_failed_and_not_the_one_that_follows(
    tmp_path
):
    bag = Written(tmp_path / 'run')
    first, second, third = (goal_id(name).hex() for name in ('first', 'second', 'third'))
    bag.add('/action_chunk', chunk(first))
    bag.add('/action_chunk', chunk(second))  # on the way here it has overtaken the end of the goal
    bag.add('/execute_instruction/_action/status', goal('first', GoalStatus.STATUS_ABORTED))
    bag.add('/execute_instruction/_action/status', goal('third', GoalStatus.STATUS_SUCCEEDED))
    bag.add('/action_chunk', chunk(third))
    episodes = read_contents(Bag(bag.close())).episodes
    assert {episode.session_id: episode.result for episode in episodes} == {
        first: 'failed', second: 'unknown', third: 'success',
    }  # fmt: skip


def test_when_a_session_is_watched_expect_what_the_guard_found_in_its_episode(tmp_path):
    bag = Written(tmp_path / 'run')
    bag.add('/inference/status', PolicyStatus(session_id='s', instruction='i', model_sha256='m'))
    bag.add('/action_chunk', chunk('s', 0, 'i'))
    for seq, action in ((0, Violation.ACTION_REFUSED), (0, Violation.ACTION_REFUSED),
                        (1, Violation.ACTION_CLAMPED)):  # fmt: skip
        bag.add('/guard/violations', Violation(session_id='s', seq=seq, action=action))
    bag.add('/guard/violations', Violation(session_id='s', suppressed=4))
    bag.add('/guard/status', GuardStatus(state=GuardStatus.STATE_FAULT))
    bag.add('/action_chunk', chunk('s', 1, 'i'))
    (episode,) = read_contents(Bag(bag.close())).episodes
    assert (episode.chunks, episode.refused, episode.violations) == (2, 1, 8)
    assert episode.stopped == 'FAULT'
    assert episode.duration_s == pytest.approx(0.07)


def test_when_a_bag_was_not_closed_expect_its_episodes_and_a_line_about_it(run, folder, capsys):
    bag = Written(folder / 'cut')
    bag.add('/action_chunk', chunk('cut'))
    bag.writer.flush()
    assert 'cut' in {row['session_id'] for row in run('query', rows=True)}
    assert 'cut_0.mcap: was not closed' in capsys.readouterr().err
    bag.add('/action_chunk', chunk('and another'))
    bag.writer.flush()
    assert 'and another' in {row['session_id'] for row in run('query', rows=True)}


def test_when_nothing_changed_expect_no_bag_read_again(folder):
    database = index.open_index(folder)
    assert index.update(database, folder).read == 4
    assert index.update(database, folder) == index.Update(0, 0, {})
    shutil.rmtree(folder / 'one')
    write(folder, 'five')
    updated = index.update(database, folder)
    assert (updated.read, updated.gone) == (1, 1)


@pytest.mark.parametrize('content', [b'', b'nonsense', b'\x89MCAP0\r\n'])
def test_when_a_bag_cannot_be_read_expect_it_named_and_the_others_found(
    run, folder, capsys, content
):
    (folder / 'bad').mkdir()
    (folder / 'bad' / 'bad_0.mcap').write_bytes(content)
    assert len(run('query', rows=True)) == 4
    assert 'bad_0.mcap' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['query', '--dir', 'DIR', '--since', 'yesterday'], '--since yesterday'),
        (['query', '--dir', 'DIR/none'], 'DIR/none: is no folder'),
        (['query', '--dir', 'DIR/one'], 'DIR/one: is a bag: name the folder that holds the bags'),
        (['label', 'DIR/none', '--success'], 'DIR/none'),
        (['query', '--dir', 'DIR', '--index', 'DIR/none/i.sqlite'], 'i.sqlite: unable to open'),
    ],
)
def test_when_an_option_is_wrong_expect_exit_code_2_and_one_line(
    folder, capsys, arguments, said
):
    assert traces.main([a.replace('DIR', str(folder)) for a in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said.replace('DIR', str(folder)) in line


@pytest.mark.parametrize('options', [['--limit', '0'], ['--output', 'a.txt'], ['--status', 'x']])
def test_when_an_option_cannot_be_read_expect_exit_code_2(folder, options, capsys):
    with pytest.raises(SystemExit) as ended:
        traces.main(['query', '--dir', str(folder), *options])
    assert ended.value.code == 2
    assert options[1] in capsys.readouterr().err


def test_when_the_index_lies_elsewhere_expect_nothing_written_among_the_bags(run, folder):
    before = sorted(folder.iterdir())
    run('query', '--index', str(folder.parent / 'elsewhere.sqlite'))
    assert sorted(folder.iterdir()) == before
    assert (folder.parent / 'elsewhere.sqlite').is_file()


def test_when_the_text_of_a_topic_is_recorded_too_expect_no_episode_of_it(tmp_path):
    bag = Written(tmp_path / 'text')
    bag.add('/instruction', String(data='reach'))
    assert read_contents(Bag(bag.close())).episodes == []


def test_when_a_killed_bag_is_repaired_expect_an_independent_reader_to_read_all_of_it(
    tmp_path, capsys
):
    bag = Written(tmp_path / 'cut')
    for seq in range(5):
        bag.add('/action_chunk', chunk(seq=seq))
    bag.writer.add_attachment('receipt.json', 'application/json', b'{}', bag.now_ns)
    bag.writer.flush()
    assert traces.main(['repair', str(tmp_path / 'cut')]) == 0
    assert 'was not closed' in capsys.readouterr().err
    repaired = tmp_path / 'cut_repaired'
    assert_played_by_rosbag2(repaired)
    assert 'ros_distro: jazzy' in (repaired / 'metadata.yaml').read_text()
    assert [m.seq for m in independent(repaired)['/action_chunk']] == list(range(5))
    read = Bag(repaired)
    assert [m.log_ns for m in read.messages()] == [
        m.log_ns for m in Bag(tmp_path / 'cut').messages()
    ]
    assert read.broken == ''
    assert read.attachments == {'receipt.json': b'{}'}
    assert read_contents(read).robot == 'franka'
    assert read_contents(read).episodes[0].chunks == 5
    elsewhere = tmp_path / 'elsewhere'
    assert traces.main(['repair', str(tmp_path / 'cut'), '--output', str(elsewhere)]) == 0
    assert elsewhere.is_dir()


def test_when_repairing_fails_in_between_expect_nothing_left_of_the_new_bag(
    tmp_path, capsys, monkeypatch
):
    bag = Written(tmp_path / 'cut')
    bag.add('/action_chunk', chunk())
    bag.writer.flush()
    monkeypatch.setattr(BagWriter, 'close', fails)
    assert traces.main(['repair', str(tmp_path / 'cut')]) == 2
    assert not (tmp_path / 'cut_repaired').exists()


def fails(_writer):
    raise RuntimeError('a fault of the program')


@pytest.mark.parametrize('closed', [True, False])
def test_when_a_message_cannot_be_read_expect_the_others_and_a_line_that_counts_it(
    run, folder, capsys, closed
):
    bag = Written(folder / 'strange')
    bag.add('/action_chunk', chunk('read'))
    bag.add_bytes('/action_chunk', b'\x00\x01\x00\x00')
    bag.close() if closed else bag.writer.flush()
    assert 'read' in {row['session_id'] for row in run('query', rows=True)}
    told = capsys.readouterr().err
    assert 'strange_0.mcap: 1 messages of /action_chunk cannot be read' in told
    assert ('was not closed' in told) == (not closed)


def test_when_the_index_cannot_be_written_expect_exit_code_2_and_its_name(
    run, folder, capsys, monkeypatch
):
    run('query')
    write(folder, 'five')
    monkeypatch.setattr(index, 'TIMEOUT_S', 0.01)
    database = sqlite3.connect(folder / index.INDEX)
    database.execute('BEGIN IMMEDIATE')  # another process writes, and does not end
    assert traces.main(['query', '--dir', str(folder)]) == 2
    database.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert f'{folder / index.INDEX}: database is locked' in line


def test_when_there_is_nothing_to_repair_expect_exit_code_2_and_no_folder(folder, capsys):
    assert traces.main(['repair', str(folder / 'one')]) == 2
    assert 'was closed: there is nothing to repair' in capsys.readouterr().err
    assert not (folder / 'one_repaired').exists()
    (folder / 'one_repaired').mkdir()
    assert traces.main(['repair', str(folder / 'one')]) == 2
    assert 'exists already' in capsys.readouterr().err
