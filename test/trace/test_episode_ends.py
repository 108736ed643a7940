# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What stops the guard counts for the episode that goes on, and for none that has ended."""

import pytest
from bags import Written, chunk

from vla_deploy.trace.bag import Bag
from vla_deploy.trace.episodes import read_contents
from vla_deploy_msgs.msg import ActionChunk, GuardStatus, PolicyStatus

ESTOP = '/guard/status', GuardStatus(state=GuardStatus.STATE_ESTOP_LATCHED)
END = '/action_chunk', ActionChunk(session_id='a', ends_session=True)


def policy(session_id):
    return '/inference/status', PolicyStatus(session_id=session_id)


def plan(session_id):
    return '/action_chunk', chunk(session_id)


@pytest.mark.parametrize(
    ('heard', 'stopped'),
    [
        ([plan('a'), ESTOP], {'a': 'ESTOP_LATCHED'}),
        ([plan('a'), END, ESTOP], {'a': ''}),
        ([plan('a'), END, policy('a'), ESTOP], {'a': ''}),
        ([plan('a'), policy(''), ESTOP], {'a': ''}),
        ([plan('a'), policy('b'), ESTOP], {'a': '', 'b': 'ESTOP_LATCHED'}),
        ([plan('a'), plan('b'), END, ESTOP], {'a': '', 'b': 'ESTOP_LATCHED'}),
        ([plan('a'), plan('b'), policy('a'), plan('b'), ESTOP], {'a': '', 'b': 'ESTOP_LATCHED'}),
        ([policy('a'), plan('a'), policy('a'), ESTOP, END], {'a': 'ESTOP_LATCHED'}),
    ],
)
def test_when_the_guard_is_stopped_expect_the_open_episode_marked_and_none_that_ended(
    tmp_path, heard, stopped
):
    bag = Written(tmp_path / 'run')
    for topic, message in heard:
        bag.add(topic, message)
        bag.now_ns += 1_000_000_000
    episodes = read_contents(Bag(bag.close())).episodes
    assert {episode.session_id: episode.stopped for episode in episodes} == stopped


@pytest.mark.parametrize('end', [END, policy('')])
def test_when_the_end_of_a_session_overtakes_the_stop_that_ended_it_expect_the_episode_marked(
    tmp_path, end
):
    bag = Written(tmp_path / 'run')
    for topic, message in (plan('a'), end, ESTOP):  # 10 ms after one another
        bag.add(topic, message)
    (episode,) = read_contents(Bag(bag.close())).episodes
    assert episode.stopped == 'ESTOP_LATCHED'
