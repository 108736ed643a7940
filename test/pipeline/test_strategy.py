# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How one chunk follows the other: counted in samples that were consumed, never by wall clock."""

import numpy as np
import pytest

from vla_deploy.pipeline.session import Execution, GuardReadiness
from vla_deploy.pipeline.strategy import ChunkStrategy, StrategyOptions, standalone

MS = 1_000_000
PERIOD = 100 * MS
STEPS, DIM = 8, 2


def make(name='asynchronous', **changes):
    settings = {
        'execute_steps': 4,
        'anchor': 'observation',
        'chunk_steps': STEPS,
        'period_s': 0.1,
        'first_sample_offset_steps': 0,
        'action_dim': DIM,
        'ensemble_decay': 0.0,
        'guidance_schedule': 'linear',
        'guidance_max_weight': 5.0,
        'action_similarity': 0.0,
        'max_skips': 2,
    }
    return ChunkStrategy(StrategyOptions(name, **{**settings, **changes}))


def ramp(begin=0.0):
    """A chunk whose sample i holds begin + i in each dim, and its raw form with padding."""
    actions = begin + np.arange(STEPS, dtype=np.float64)[:, None] * np.ones(DIM)
    return actions, np.hstack([actions, np.zeros((STEPS, 1))]).astype(np.float32)


def heard(strategy, ms, seq=0, next_index=0, consumed=0, session='s', has_plan=True):
    strategy.on_execution(
        Execution(
            ms * MS, GuardReadiness.EXECUTES, 'ARMED', session, seq, has_plan, next_index,
            consumed_total=consumed,
        )
    )  # fmt: skip


def first_chunk(strategy, session='s', begin=0.0):
    """Send chunk 0 from a standing start at 1000 ms; it runs from there."""
    heard(strategy, 990, has_plan=False)
    placed = strategy.place(strategy.draft(session, 990 * MS), 0, *ramp(begin), 1000 * MS)
    heard(strategy, 1000, next_index=1, session=session)
    return placed


def second_chunk(strategy, observed_ms=1350, sent_ms=1450, consumed=(3, 4), session='s'):
    """Observe and send chunk 1 while chunk 0 runs; counts at the observation and at sending."""
    heard(strategy, observed_ms, next_index=consumed[0] + 1, consumed=consumed[0], session=session)
    draft = strategy.draft(session, observed_ms * MS)
    heard(strategy, sent_ms, next_index=consumed[1] + 1, consumed=consumed[1], session=session)
    return draft, strategy.place(draft, 1, *ramp(3.5), sent_ms * MS)


# -- when a chunk begins --------------------------------------------------------------------------


@pytest.mark.parametrize('anchor', ['observation', 'arrival'])
@pytest.mark.parametrize('offset', [0, 1])
def test_when_the_robot_stands_expect_the_chunk_to_begin_at_sending(anchor, offset):
    placed = first_chunk(make(anchor=anchor, first_sample_offset_steps=offset))
    assert placed.stamp_ns == 1000 * MS + offset * PERIOD
    assert (placed.delay_steps, placed.guided_steps, placed.difference) == (0, 0, 0.0)


@pytest.mark.parametrize(('anchor', 'begins_ms'), [('observation', 1350), ('arrival', 1450)])
def test_when_a_plan_runs_expect_the_chunk_dated_as_the_anchor_says(anchor, begins_ms):
    strategy = make(anchor=anchor)
    first_chunk(strategy)
    _, placed = second_chunk(strategy)
    assert placed.stamp_ns == begins_ms * MS
    assert placed.delay_steps == 1


@pytest.mark.parametrize(('late_ms', 'put_off_ms'), [(1549, 0), (2350, 800), (5350, 3800)])
def test_when_the_plan_stood_still_meanwhile_expect_the_chunk_put_off_by_that(late_ms, put_off_ms):
    """One sample was consumed: of the time since, two periods at most were spent on that."""
    strategy = make()
    first_chunk(strategy)
    _, placed = second_chunk(strategy, sent_ms=late_ms)
    assert placed.stamp_ns == (1350 + put_off_ms) * MS


def seen_before_the_start(strategy, has_plan, sent_ms, next_index, consumed):
    """Observe while chunk 0 has not begun; send chunk 1 later, when the guard has got so far."""
    heard(strategy, 990, has_plan=False)
    strategy.place(strategy.draft('s', 990 * MS), 0, *ramp(), 1000 * MS)
    heard(strategy, 1005, has_plan=has_plan)
    draft = strategy.draft('s', 1007 * MS)
    heard(strategy, sent_ms, next_index=next_index, consumed=consumed)
    return strategy.place(draft, 1, *ramp(), sent_ms * MS)


@pytest.mark.parametrize('has_plan', [False, True])  # not heard of yet, or awaits its begin
@pytest.mark.parametrize(
    ('offset', 'sent_ms', 'next_index', 'consumed', 'stamp_ms'),
    [
        (0, 1250, 3, 3, 1000),
        (0, 1250, 3, 2, 1000),  # sample 0 was over when the guard began
        (0, 1050, 1, 0, 1000),
        (1, 1250, 2, 2, 1100),
        (0, 2000, 2, 2, 1800),  # was held at sample 2
    ],
)
def test_when_the_robot_has_set_off_since_it_was_seen_expect_the_chunk_to_begin_when_it_did(
    has_plan, offset, sent_ms, next_index, consumed, stamp_ms
):
    strategy = make(first_sample_offset_steps=offset)
    placed = seen_before_the_start(strategy, has_plan, sent_ms, next_index, consumed)
    assert (placed.stamp_ns, placed.delay_steps) == (stamp_ms * MS, consumed)


@pytest.mark.parametrize('has_plan', [False, True])
def test_when_the_robot_stands_still_since_it_was_seen_expect_the_chunk_to_begin_at_sending(
    has_plan
):
    strategy = make(first_sample_offset_steps=1)
    assert seen_before_the_start(strategy, has_plan, 1090, 0, 0).stamp_ns == 1190 * MS


def test_when_the_first_chunk_is_over_meanwhile_expect_the_next_put_off_by_the_rest():
    strategy = make()
    heard(strategy, 990, has_plan=False)
    strategy.place(strategy.draft('s', 990 * MS), 0, *ramp(), 1000 * MS)
    draft = strategy.draft('s', 990 * MS)
    heard(strategy, 2500, has_plan=False, consumed=STEPS)
    placed = strategy.place(draft, 1, *ramp(), 2500 * MS)
    assert placed.stamp_ns == 2500 * MS - (STEPS + 1) * PERIOD


def test_when_a_chunk_was_made_of_a_standing_robot_expect_no_delay_from_it():
    strategy = make()
    seen_before_the_start(strategy, False, 1250, 3, 3)
    heard(strategy, 1260, seq=1, next_index=3, consumed=3)
    assert strategy.delay_steps == 4  # as before any was measured


def test_when_a_chunk_is_asked_for_alone_expect_it_as_it_is():
    placed = standalone(ramp()[0], 7)
    assert (placed.stamp_ns, placed.delay_steps, placed.skipped) == (7, 0, 0)


# -- the delay ------------------------------------------------------------------------------------


def test_when_no_delay_was_measured_expect_the_largest_that_leaves_the_chunks_joined():
    assert make(execute_steps=3).delay_steps == 3
    assert make('synchronous').delay_steps == 0


def test_when_chunks_begin_expect_the_95th_percentile_of_the_samples_consumed_until_then():
    strategy = make()
    first_chunk(strategy)
    assert strategy.delay_steps == 4  # chunk 0 began from a standing start: nothing was consumed
    second_chunk(strategy)
    heard(strategy, 1500, seq=1, next_index=2, consumed=5)
    heard(strategy, 1600, seq=1, next_index=3, consumed=6)
    assert strategy.delay_steps == 2


def test_when_time_passes_without_samples_consumed_expect_no_delay_from_it():
    strategy = make()
    first_chunk(strategy)
    second_chunk(strategy, sent_ms=9000, consumed=(3, 3))
    heard(strategy, 9010, seq=1, next_index=0, consumed=3)
    assert strategy.delay_steps == 0


# -- synchronous and ensembling -------------------------------------------------------------------


def test_when_synchronous_expect_no_more_than_execute_steps_sent():
    assert len(first_chunk(make('synchronous')).actions) == 4
    assert len(first_chunk(make('asynchronous')).actions) == STEPS


def test_when_ensembling_expect_the_mean_with_what_runs_and_the_new_chunk_behind_it():
    strategy = make('ensembling')
    first_chunk(strategy, begin=1.0)
    _, placed = second_chunk(strategy)  # its sample 0 lies between samples 3 and 4 of the first
    new, old = 3.5 + np.arange(STEPS), 1.0 + 3.5 + np.arange(STEPS)
    expected = np.where(np.arange(STEPS) <= 3, 0.5 * (new + old), new)
    assert placed.actions[:, 0] == pytest.approx(expected)


def test_when_ensemble_decay_is_larger_expect_the_older_chunk_to_weigh_more():
    def first_sample(decay):
        strategy = make('ensembling', ensemble_decay=decay)
        first_chunk(strategy, begin=1.0)
        return second_chunk(strategy)[1].actions[0, 0]

    assert first_sample(2.0) == pytest.approx(3.5 + 1.0 / (1.0 + np.exp(-2.0)))
    assert first_sample(2.0) > first_sample(0.0)


# -- real-time chunking ---------------------------------------------------------------------------


def test_when_real_time_chunking_expect_what_is_left_of_the_running_chunk_on_the_new_grid():
    strategy = make('real_time_chunking')
    first_chunk(strategy)
    draft, placed = second_chunk(strategy)
    guidance = draft.guidance
    assert guidance.previous.dtype == np.float32
    assert guidance.previous[:, 0] == pytest.approx([3.5, 4.5, 5.5, 6.5])
    assert guidance.previous.shape == (4, DIM)
    assert guidance.delay_steps == 4 + 1
    assert (guidance.schedule, guidance.max_weight) == ('linear', 5.0)
    assert placed.guided_steps == 4


def test_when_the_first_sample_lies_a_period_ahead_expect_the_left_over_to_begin_there():
    strategy = make('real_time_chunking', first_sample_offset_steps=1)
    first_chunk(strategy)  # its sample 0 lies at 1100 ms
    heard(strategy, 1350, next_index=3, consumed=3)
    guidance = strategy.draft('s', 1350 * MS).guidance
    assert guidance.previous[0, 0] == pytest.approx(3.5)
    assert guidance.delay_steps == 4


def test_when_the_plan_lags_behind_the_clock_expect_the_guards_count_to_decide():
    strategy = make('real_time_chunking')
    first_chunk(strategy)
    heard(strategy, 1700, next_index=3, consumed=2)
    assert strategy.draft('s', 1700 * MS).guidance.previous[0, 0] == pytest.approx(3.0)


@pytest.mark.parametrize('name', ['synchronous', 'asynchronous', 'ensembling'])
def test_when_another_strategy_expect_no_guidance(name):
    strategy = make(name)
    first_chunk(strategy)
    assert second_chunk(strategy)[0].guidance is None


@pytest.mark.parametrize('name', ['ensembling', 'real_time_chunking'])
def test_when_a_new_session_begins_expect_nothing_of_the_old_in_it(name):
    strategy = make(name)
    first_chunk(strategy, begin=100.0)
    heard(strategy, 1350, next_index=4, consumed=3)
    draft = strategy.draft('another', 1350 * MS)
    placed = strategy.place(draft, 0, *ramp(), 1400 * MS)
    assert draft.guidance is None
    assert np.array_equal(placed.actions, ramp()[0])
    assert placed.difference == 0.0


@pytest.mark.parametrize('name', ['ensembling', 'real_time_chunking'])
def test_when_the_robot_has_been_held_expect_nothing_of_the_plan_before_in_the_chunk(name):
    strategy = make(name)
    first_chunk(strategy, begin=100.0)
    heard(strategy, 1350, has_plan=False)
    draft = strategy.draft('s', 1350 * MS)
    placed = strategy.place(draft, 1, *ramp(), 1400 * MS)
    assert draft.guidance is None
    assert np.array_equal(placed.actions, ramp()[0])
    assert placed.stamp_ns == 1400 * MS


def test_when_the_guard_has_not_taken_the_newest_chunk_expect_the_one_that_runs():
    strategy = make('real_time_chunking')
    first_chunk(strategy)
    second_chunk(strategy)  # refused: chunk 0 goes on
    heard(strategy, 1550, seq=0, next_index=6, consumed=5)
    assert strategy.draft('s', 1550 * MS).guidance.previous[0, 0] == pytest.approx(5.5)


def test_when_a_chunk_is_not_finite_expect_nothing_drawn_toward_it():
    strategy = make('real_time_chunking')
    first_chunk(strategy)
    heard(strategy, 1350, next_index=4, consumed=3)
    draft = strategy.draft('s', 1350 * MS)
    actions, raw = ramp()
    strategy.place(draft, 1, actions * np.nan, raw * np.float32(np.nan), 1400 * MS)
    heard(strategy, 1450, next_index=5, consumed=4)
    assert strategy.draft('s', 1450 * MS).guidance.previous[0, 0] == pytest.approx(4.5)


def test_when_the_clock_jumps_back_expect_a_chunk_that_follows_none():
    strategy = make('real_time_chunking')
    first_chunk(strategy)
    strategy.forget_times()
    assert strategy.draft('s', 10 * MS).guidance is None


# -- inferences that are left out -----------------------------------------------------------------


def alike(**changes):
    """A strategy whose second chunk differs from the first by 0.25, and runs."""
    strategy = make(execute_steps=2, action_similarity=0.3, **changes)
    first_chunk(strategy, begin=-0.25)
    _, placed = second_chunk(strategy)
    heard(strategy, 1460, seq=1, next_index=2, consumed=4)
    assert placed.difference == pytest.approx(0.25)
    return strategy


def test_when_chunks_are_alike_expect_the_next_inference_left_out_up_to_the_cap():
    strategy = alike(max_skips=1)
    assert strategy.may_skip(2)
    strategy.skip()
    assert not strategy.may_skip(2)


def test_when_an_inference_was_left_out_expect_the_next_chunk_to_say_so_and_by_how_much_it_erred():
    strategy = alike()
    strategy.skip()
    heard(strategy, 1750, seq=1, next_index=5, consumed=7)
    draft = strategy.draft('s', 1750 * MS)
    placed = strategy.place(draft, 2, *ramp(8.0), 1760 * MS)  # the running chunk has 7.5 there
    assert placed.skipped == 1
    assert placed.difference == pytest.approx(0.5)
    assert not strategy.may_skip(2)


@pytest.mark.parametrize(
    ('changes', 'due_index'),
    [({'action_similarity': 0.0}, 2), ({'action_similarity': 0.2}, 2), ({}, 5)],
    ids=['off', 'not alike', 'too little is left'],
)
def test_when_it_cannot_be_left_out_expect_it_computed(changes, due_index):
    strategy = make(**{'execute_steps': 2, 'action_similarity': 0.3, **changes})
    first_chunk(strategy, begin=-0.25)
    second_chunk(strategy)
    heard(strategy, 1460, seq=1, next_index=2, consumed=4)
    assert not strategy.may_skip(due_index)
