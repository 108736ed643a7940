# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Emergency stops of several sources: none is cancelled by another, and none may get lost."""

import pytest
from guard_world import GuardState, World

from vla_deploy.core.estop import EstopSources

S = 1_000_000_000


def sources(required: bool = False, timeout_s: float = 0.0) -> EstopSources:
    return EstopSources(['panel', 'door'], required, timeout_s)


def test_when_a_source_says_true_expect_it_named_until_it_says_false() -> None:
    estop = sources()
    assert estop.reason(0) == ''
    estop.hear('panel', True, 1, 0)
    assert estop.reason(100 * S) == "emergency stop: 'panel' is true"
    estop.hear('panel', False, 1, S)
    assert estop.reason(S) == ''


def test_when_another_topic_says_false_expect_the_stop_to_stay() -> None:
    estop = sources()
    estop.hear('panel', True, 1, 0)
    estop.hear('door', False, 1, 0)
    assert 'panel' in estop.reason(0)


def test_when_another_publisher_of_the_topic_says_false_expect_the_stop_to_stay() -> None:
    estop = sources()
    estop.hear('panel', True, 2, 0)
    estop.hear('panel', False, 2, 0)
    assert 'it has 2 publishers, so that false clears nothing' in estop.reason(0)
    estop.count('panel', 1)
    assert estop.reason(0) == "emergency stop: 'panel' is true"
    estop.hear('panel', False, 1, 0)
    assert estop.reason(0) == ''


def test_when_the_source_that_said_true_has_left_expect_the_stop_to_stay() -> None:
    estop = sources()
    estop.hear('panel', True, 1, 0)
    estop.count('panel', 0)
    assert estop.reason(S) != ''


def test_when_a_required_publisher_leaves_expect_a_stop_until_it_is_back() -> None:
    estop = sources(required=True)
    for topic in ('panel', 'door'):
        estop.hear(topic, False, 0, 0)  # the graph may not know it yet
    assert estop.reason(100 * S) == ''
    estop.count('door', 0)
    assert estop.reason(0) == "emergency stop: the publisher of 'door' is gone"
    estop.count('door', 1)
    assert estop.reason(0) == ''


def test_when_it_is_not_required_expect_no_stop_where_a_publisher_leaves_or_is_silent() -> None:
    estop = sources()
    estop.hear('panel', False, 1, 0)
    estop.count('panel', 0)
    assert estop.reason(1000 * S) == ''
    assert estop.missing() == ''


@pytest.mark.parametrize(('timeout_s', 'said'), [
    (0.0, ''), (0.6, ''), (0.4, "emergency stop: 'panel' was silent for 0.500 s")])
def test_when_a_required_source_is_silent_for_longer_than_its_timeout_expect_a_stop(
    timeout_s: float, said: str
) -> None:
    estop = sources(required=True, timeout_s=timeout_s)
    estop.hear('panel', False, 1, S)
    estop.hear('door', False, 1, S + S // 2)
    assert estop.reason(S + S // 2) == said


def test_when_a_required_source_was_never_heard_expect_it_missing_but_no_stop() -> None:
    estop = sources(required=True, timeout_s=0.1)
    estop.hear('panel', False, 1, 0)
    assert estop.reason(0) == ''
    assert estop.missing() == "nothing was heard on 'door', an emergency stop that is required"
    estop.hear('door', True, 1, 0)
    assert estop.missing() == ''
    assert 'door' in estop.reason(0)


def test_when_a_source_stops_the_guard_expect_its_reason_in_state_reset_and_arm() -> None:
    world = World()
    world.arm()
    reason = "emergency stop: 'panel' is true"
    out = world.tick(estop=True, estop_reason=reason)
    assert (out.state, out.reason) == (GuardState.ESTOP_LATCHED, reason)
    out = world.tick(estop=True, estop_reason=reason, reset=True)
    assert (out.answers[0].success, out.answers[0].message) == (
        False, f'still active: {reason}')
    world.tick(reset=True)
    assert world.core.state is GuardState.DISARMED
    out = world.tick(arm=True, estop=True, estop_reason=reason)
    assert out.answers[0].message == f'ESTOP_LATCHED: {reason}; reset first'
