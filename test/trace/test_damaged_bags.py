# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever is in a bag: it is read as far as it can be, or named, and never ends in a trace."""

import contextlib
import random

import pytest
from bags import Written, chunk
from mcap.writer import Writer

from vla_deploy.cli import guard_explain, traces
from vla_deploy.trace.bag import Bag, BagError
from vla_deploy.trace.episodes import EPISODES, read_contents
from vla_deploy_msgs.msg import Violation


@pytest.fixture
def whole(tmp_path):
    """A small bag that was closed."""
    bag = Written(tmp_path / 'traces' / 'whole')
    for seq in range(3):
        bag.add('/action_chunk', chunk('s', seq))
        bag.add('/guard/violations', Violation(session_id='s', seq=seq, action=1))
    return bag.close()


def foreign(folder, type_name='', schema=None, encoding='ros2msg'):
    """A bag as another program writes it: a channel without schema, or with one of its own."""
    folder.mkdir(parents=True)
    with (folder / 'foreign.mcap').open('wb') as file:
        writer = Writer(file)
        writer.start()
        number = 0 if schema is None else writer.register_schema(type_name, encoding, schema)
        channel = writer.register_channel('/other', 'json', number)
        writer.add_message(channel, 1, b'\x00\x01\x00\x00{}', 1)
        writer.finish()
    return folder


def changed(data, random_bits):
    """Bytes with one to three bits turned."""
    turned = bytearray(data)
    for _ in range(random_bits.randint(1, 3)):
        turned[random_bits.randrange(len(turned))] ^= 1 << random_bits.randrange(8)
    return bytes(turned)


@pytest.mark.parametrize('closed', [True, False])
def test_when_bits_of_a_bag_are_turned_expect_results_or_a_bag_error(whole, closed):
    (file,) = whole.glob('*.mcap')
    data = file.read_bytes()
    data = data if closed else data[: len(data) * 2 // 3]
    random_bits = random.Random(0)
    for _ in range(600):
        file.write_bytes(changed(data, random_bits))
        for read in (read_contents, lambda bag: [bag.decode(m) for m in bag.messages()]):
            with contextlib.suppress(BagError):
                read(Bag(whole))


def test_when_bags_are_damaged_anywhere_expect_the_others_listed(whole, capsys):
    (file,) = whole.glob('*.mcap')
    data = file.read_bytes()
    random_bits = random.Random(1)
    for number in range(100):
        folder = whole.parent / f'damaged{number}'
        folder.mkdir()
        (folder / 'a.mcap').write_bytes(changed(data, random_bits))
    other = Written(whole.parent / 'other')
    other.add('/action_chunk', chunk('of the other'))
    other.close()
    assert traces.main(['query', '--dir', str(whole.parent)]) == 0
    assert str(whole.parent / 'other') in capsys.readouterr().out


def test_when_a_channel_has_no_schema_expect_the_bag_read_and_no_problem(tmp_path, whole, capsys):
    bag = Bag(foreign(tmp_path / 'traces' / 'foreign'))
    assert [(m.topic, m.type_name) for m in bag.messages()] == [('/other', '')]
    assert bag.broken == ''
    assert traces.main(['query', '--dir', str(tmp_path / 'traces')]) == 0
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('schema', [b'\xff\xfe binary', b'no definition', b'string other 0'])
def test_when_a_type_of_ours_is_defined_otherwise_expect_its_messages_counted_as_unreadable(
    tmp_path, schema
):
    contents = read_contents(
        Bag(foreign(tmp_path / 'b', 'vla_deploy_msgs/msg/ActionChunk', schema))
    )
    assert contents.episodes == []
    assert '1 messages of /other cannot be read' in contents.broken


def test_when_the_record_at_the_end_is_damaged_expect_the_episodes_read_from_the_messages(whole):
    (file,) = whole.glob('*.mcap')
    before = read_contents(Bag(whole))
    data = file.read_bytes()
    assert data.count(b'"chunks": 3') == 1
    file.write_bytes(data.replace(b'"chunks": 3', b'"chunks": x'))
    assert read_contents(Bag(whole)) == before
    file.write_bytes(data.replace(EPISODES.encode(), b'x' * len(EPISODES)))
    assert read_contents(Bag(whole)).episodes == before.episodes


@pytest.mark.parametrize('robot', [[], ['--robot', 'franka']])
@pytest.mark.parametrize('schema', [b'\xff\xfe binary', b'string other 0'])
def test_when_a_bag_that_is_explained_is_of_another_version_expect_exit_code_2_and_one_line(
    tmp_path, capsys, schema, robot
):
    name = 'ActionChunk' if robot else 'Violation'
    folder = foreign(tmp_path / 'b', f'vla_deploy_msgs/msg/{name}', schema)
    assert guard_explain.main(['--bag', str(folder), *robot]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'guard explain: {folder}: /other')


def test_when_a_bag_that_is_explained_refers_to_what_is_not_there_expect_one_line(
    whole, capsys
):
    (file,) = whole.glob('*.mcap')
    random_bits = random.Random(2)
    data = file.read_bytes()
    for _ in range(200):
        file.write_bytes(changed(data, random_bits))
        guard_explain.main(['--bag', str(whole)])  # raises nothing
        assert len(capsys.readouterr().err.splitlines()) <= 1
