# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""When a goal ends, and with what."""

import pytest

from vla_deploy.pipeline.goal import ErrorCode, Goal, Hindrance, Outcome

S = 1_000_000_000
STALE = Hindrance(ErrorCode.OBSERVATION, 'image/front: no image yet')
ESTOP = Hindrance(ErrorCode.GUARD, 'the guard is ESTOP_LATCHED', final=True)


def make(**changes):
    settings = {'accepted_ns': S, 'max_duration_s': 0.0, 'max_chunks': 0, 'patience_s': 2.0}
    return Goal(**{**settings, **changes})


def test_when_nothing_limits_a_goal_expect_it_to_go_on():
    assert make().outcome(10_000 * S, 10_000, True) is None


@pytest.mark.parametrize(('now_ns', 'reason'), [(4 * S - 1, None), (4 * S, 'max_duration')])
def test_when_the_duration_is_up_expect_the_end(now_ns, reason):
    outcome = make(max_duration_s=3.0).outcome(now_ns, 0, False)
    assert (outcome and outcome.reason) == reason


@pytest.mark.parametrize(
    ('sent', 'over', 'reason'), [(2, True, None), (3, False, None), (3, True, 'max_chunks')]
)
def test_when_the_chunks_are_sent_and_the_last_is_over_expect_the_end(sent, over, reason):
    outcome = make(max_chunks=3).outcome(S, sent, over)
    assert (outcome and outcome.reason) == reason


def test_when_a_hindrance_outlasts_the_patience_expect_its_code_and_text():
    goal = make()
    goal.hindered(STALE, 5 * S)
    goal.hindered(STALE, 6 * S)
    assert goal.outcome(7 * S - 1, 0, False) is None
    assert goal.outcome(7 * S, 0, False) == Outcome('error', ErrorCode.OBSERVATION, STALE.text)


def test_when_a_chunk_is_sent_in_between_expect_the_patience_anew():
    goal = make()
    goal.hindered(STALE, 5 * S)
    goal.hindered(None, 6 * S)
    goal.hindered(STALE, 6 * S)
    assert goal.outcome(8 * S - 1, 1, False) is None
    assert goal.outcome(8 * S, 1, False).code is ErrorCode.OBSERVATION


def test_when_a_chunk_is_computed_expect_no_hindrance_to_count_unless_waiting_is_of_no_use():
    goal = make()
    goal.hindered(STALE, 5 * S)
    assert goal.outcome(9 * S, 0, False, computing=True) is None
    assert goal.outcome(9 * S, 0, False).code is ErrorCode.OBSERVATION
    goal.hindered(ESTOP, 9 * S)
    assert goal.outcome(9 * S, 0, False, computing=True).code is ErrorCode.GUARD


def test_when_waiting_is_of_no_use_expect_the_end_at_once():
    goal = make()
    goal.hindered(ESTOP, 5 * S)
    assert goal.outcome(5 * S, 0, False) == Outcome('error', ErrorCode.GUARD, ESTOP.text)


def test_when_time_passes_expect_it_as_elapsed_and_never_less_than_0():
    assert make().elapsed_s(3 * S) == 2.0
    assert make().elapsed_s(0) == 0.0
