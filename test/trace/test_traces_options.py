# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Options of `traces` that have no obvious meaning: taken, or refused in one line."""

import pytest
from bags import Written, chunk

from vla_deploy.cli import traces


@pytest.fixture
def folder(tmp_path):
    bag = Written(tmp_path / 'traces' / 'run')
    bag.add('/action_chunk', chunk('s'))
    return bag.close().parent


def test_when_the_bag_to_repair_is_this_folder_expect_the_new_one_beside_it(folder, monkeypatch):
    bag = Written(folder / 'cut')
    bag.add('/action_chunk', chunk('of cut'))
    bag.writer.flush()
    monkeypatch.chdir(folder / 'cut')
    assert traces.main(['repair', '.']) == 0
    assert (folder / 'cut_repaired').is_dir()


@pytest.mark.parametrize('limit', ['99999999999999999999', '9' * 5000, '9223372036854775808', '²'])
def test_when_a_limit_is_no_number_that_is_taken_expect_exit_code_2_and_one_line(
    folder, capsys, limit
):
    with pytest.raises(SystemExit) as ended:
        traces.main(['query', '--dir', str(folder), '--limit', limit])
    assert ended.value.code == 2
    assert 'is no number of episodes' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('options', [['--limit', '9223372036854775807'], ['--since', '9999-12-31']])
def test_when_a_limit_or_a_date_is_as_large_as_can_be_expect_it_taken(folder, options):
    assert traces.main(['query', '--dir', str(folder), *options]) == 0
