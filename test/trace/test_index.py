# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the index takes for a bag, when it reads one again, and that no episode counts twice."""

import json
import os
import sqlite3

import pytest
from bags import Written, chunk

from vla_deploy.cli import traces
from vla_deploy.trace import index
from vla_deploy.trace.query import Filter, find


def write(path, session_id='s', closed=True):
    bag = Written(path)
    bag.add('/action_chunk', chunk(session_id))
    if closed:
        return bag.close()
    bag.writer.flush()
    return path


def found(folder):
    """Return bag -> result, and what is wrong."""
    database = index.open_index(folder)
    updated = index.update(database, folder)
    rows = find(database, Filter())
    return [(os.path.relpath(row.bag, folder), row.result) for row in rows], updated


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'traces'
    write(folder / 'run')
    return folder


def test_when_folders_are_linked_expect_each_episode_once_and_no_endless_way(folder):
    (folder / 'latest').symlink_to('run')
    (folder / 'loop').symlink_to('.')
    rows, updated = found(folder)
    assert rows == [('run', 'unknown')]
    assert updated.problems == {}


def test_when_the_folder_itself_is_a_link_expect_the_bags_in_it(folder, tmp_path):
    (tmp_path / 'link').symlink_to(folder)
    assert found(tmp_path / 'link')[0] == [('run', 'unknown')]


def test_when_a_bag_was_repaired_expect_its_episode_once_from_the_closed_bag(folder, capsys):
    write(folder / 'cut', 'of cut', closed=False)
    assert traces.main(['label', str(folder / 'cut'), '--success']) == 0
    assert traces.main(['repair', str(folder / 'cut')]) == 0
    assert (folder / 'cut_repaired' / 'labels.json').read_bytes() == (
        folder / 'cut' / 'labels.json'
    ).read_bytes()
    assert sorted(found(folder)[0]) == [('cut_repaired', 'success'), ('run', 'unknown')]


def test_when_only_one_of_two_bags_is_labelled_expect_the_label_to_count(folder):
    write(folder / 'cut', 'of cut', closed=False)
    assert traces.main(['repair', str(folder / 'cut')]) == 0
    assert traces.main(['label', str(folder / 'cut'), '--failure']) == 0
    assert ('cut', 'failed') in found(folder)[0]


def test_when_episodes_have_no_session_expect_all_of_them(folder):
    for name in ('one', 'two'):
        write(folder / name, '')
    assert len(found(folder)[0]) == 3


def test_when_labels_are_edited_in_place_expect_the_new_ones(folder):
    labels = folder / 'run' / 'labels.json'
    labels.write_text(json.dumps({'s': 'success'}))
    assert found(folder)[0] == [('run', 'success')]
    with labels.open('r+') as file:
        file.write(json.dumps({'s': 'failed'}) + ' ')
    os.utime(labels, ns=(1, 1))
    assert found(folder)[0] == [('run', 'failed')]
    assert found(folder)[1].read == 0


def test_when_labels_are_none_expect_them_named(folder):
    (folder / 'run' / 'labels.json').write_text('{"s": [1]}')
    (problem,) = found(folder)[1].problems.values()
    assert 'labels.json: must map session ids' in problem


def test_when_a_bag_that_could_not_be_read_is_whole_again_expect_it_found(folder):
    (file,) = (folder / 'run').glob('*.mcap')
    data = file.read_bytes()
    file.write_bytes(b'x' * len(data))
    assert list(found(folder)[1].problems) == [str(folder / 'run')]
    file.write_bytes(data)
    rows, updated = found(folder)
    assert rows == [('run', 'unknown')]
    assert updated.problems == {}


def test_when_an_index_is_of_an_older_version_expect_it_made_anew(folder):
    database = sqlite3.connect(folder / index.INDEX)
    database.executescript('CREATE TABLE bags (path TEXT); PRAGMA user_version = 1;')
    database.close()
    assert found(folder)[0] == [('run', 'unknown')]


def test_when_an_index_is_of_a_newer_version_expect_it_named(folder, capsys):
    sqlite3.connect(folder / index.INDEX).executescript('PRAGMA user_version = 99;')
    assert traces.main(['query', '--dir', str(folder)]) == 2
    assert f'{folder / index.INDEX}: is of a newer version' in capsys.readouterr().err
