# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""When a chunk is due, and which instruction it belongs to."""

import dataclasses

import pytest

from vla_deploy.pipeline.session import (
    Execution,
    GuardReadiness,
    InstructionError,
    SessionCore,
)

MS = 1_000_000
IDLE = Execution(0, GuardReadiness.EXECUTES, 'HOLD', '', 0, False, 0)


def make_core(**changes):
    settings = {
        'execute_steps': 8,
        'retry_s': 0.2,
        'execution_timeout_s': 0.5,
        'instruction_max_length': 20,
        'allow_blank_instruction': False,
    }
    core = SessionCore(**{**settings, **changes})
    core.on_execution(IDLE)
    return core


def running(core, now_ns, next_index, seq=0, session_id='s'):
    core.on_execution(
        Execution(now_ns, GuardReadiness.EXECUTES, 'ARMED', session_id, seq, True, next_index)
    )


def test_when_no_session_expect_nothing_due():
    assert not make_core().due(0)


def test_when_session_begins_expect_a_chunk_due_at_once():
    core = make_core()
    core.start('s', 'reach')
    assert core.due(0)


def test_when_a_chunk_is_being_computed_expect_no_other():
    core = make_core()
    core.start('s', 'reach')
    core.in_flight = True
    assert not core.due(0)


@pytest.mark.parametrize(('next_index', 'due'), [(7, False), (8, True)])
def test_when_the_newest_chunk_runs_expect_the_next_after_execute_steps(next_index, due):
    core = make_core()
    core.start('s', 'reach')
    core.sent('s', 0)
    running(core, 10 * MS, next_index)
    assert core.due(10 * MS) is due


def test_when_execute_steps_is_larger_expect_it_later():
    core = make_core(execute_steps=16)
    core.start('s', 'reach')
    core.sent('s', 0)
    running(core, 10 * MS, 8)
    assert not core.due(10 * MS)


@pytest.mark.parametrize(('now_ms', 'due'), [(199, False), (200, True)])
def test_when_the_newest_chunk_is_not_executed_expect_another_after_retry(now_ms, due):
    core = make_core()
    core.start('s', 'reach')
    core.sent('s', 0)
    running(core, now_ms * MS, 16, seq=0, session_id='older')
    assert core.due(now_ms * MS) is due


def test_when_guard_is_silent_expect_nothing_due_and_the_reason():
    core = make_core()
    core.start('s', 'reach')
    assert not core.due(501 * MS)
    assert 'silent' in core.blocked_by(501 * MS)


def test_when_guard_was_never_heard_expect_the_topic_named():
    core = SessionCore(8, 0.2, 0.5, 20, False)
    core.start('s', 'reach')
    assert not core.due(0)
    assert 'execution_state' in core.blocked_by(0)


def test_when_guard_would_refuse_expect_nothing_due_and_its_state():
    core = make_core()
    core.start('s', 'reach')
    refuses = GuardReadiness.REFUSES
    core.on_execution(dataclasses.replace(IDLE, readiness=refuses, state_name='FAULT'))
    assert not core.due(0)
    assert core.blocked_by(0) == 'the guard is FAULT'


def test_when_session_is_over_expect_its_chunk_to_be_dropped():
    core = make_core()
    core.start('old', 'reach')
    core.start('new', 'grasp')
    assert core.sent('old', 0) is None


def test_when_chunks_are_sent_expect_them_numbered_from_zero_in_each_session():
    core = make_core()
    core.start('a', 'reach')
    assert [core.sent('a', 0), core.sent('a', 1)] == [0, 1]
    core.start('b', 'reach')
    assert core.sent('b', 2) == 0


@pytest.mark.parametrize('text', ['', '  ', '\n', 'x' * 21])
def test_when_instruction_is_empty_or_too_long_expect_an_error_and_the_old_session(text):
    core = make_core()
    core.start('s', 'reach')
    with pytest.raises(InstructionError):
        core.start('t', text)
    assert core.session.session_id == 's'


def test_when_blank_is_allowed_expect_a_session():
    core = make_core(allow_blank_instruction=True)
    core.start('s', ' ')
    assert core.due(0)


def test_when_the_clock_jumps_back_expect_a_chunk_due_once_the_guard_is_heard_again():
    core = make_core()
    core.start('s', 'reach')
    core.sent('s', 9000 * MS)
    core.placed(9100 * MS, 8900 * MS)
    core.forget_times()
    assert 'not been heard' in core.blocked_by(10 * MS)
    core.on_execution(dataclasses.replace(IDLE, stamp_ns=10 * MS))
    assert core.due(10 * MS)
    running(core, 10 * MS, 1)  # the guard may still run what it was sent before the jump
    assert core.observe_from_ns <= 10 * MS


def test_when_stopped_expect_nothing_due():
    core = make_core()
    core.start('s', 'reach')
    core.stop()
    assert not core.due(0)


def test_when_synchronous_expect_a_chunk_due_only_at_rest_and_observed_since_then():
    core = make_core(synchronous=True)
    core.start('s', 'reach')
    core.sent('s', 0)
    running(core, 10 * MS, 16)
    assert not core.due(10 * MS)
    core.on_execution(dataclasses.replace(IDLE, stamp_ns=20 * MS, at_rest=False))
    assert not core.due(20 * MS)
    for ms in (30, 40):
        core.on_execution(dataclasses.replace(IDLE, stamp_ns=ms * MS))
    assert core.due(40 * MS)
    assert core.observe_from_ns == 30 * MS


@pytest.mark.parametrize(('running_seq', 'from_ns'), [(None, 0), (0, 0), (1, 30 * MS + 1)])
def test_when_the_newest_chunk_runs_expect_a_newer_observation_than_its_own(running_seq, from_ns):
    core = make_core()
    core.start('s', 'reach')
    for observed_ms in (10, 30):
        core.sent('s', 40 * MS)
        core.placed(50 * MS, observed_ms * MS)
    if running_seq is not None:
        running(core, 50 * MS, 1, seq=running_seq)
    assert core.observe_from_ns == from_ns


def test_when_an_inference_is_skipped_expect_the_next_due_as_many_samples_later():
    core = make_core()
    core.start('s', 'reach')
    core.sent('s', 0)
    running(core, 10 * MS, 8)
    assert core.skippable_at == 8
    core.skip()
    assert not core.due(10 * MS)
    running(core, 20 * MS, 16)
    assert core.due(20 * MS)
    assert core.skippable_at == 16
    core.sent('s', 20 * MS)
    assert core.skippable_at is None


def test_when_the_chunks_of_a_goal_are_sent_expect_no_other():
    core = make_core()
    core.start('s', 'reach', max_chunks=1)
    assert core.due(0)
    core.sent('s', 0)
    running(core, 10 * MS, 8)
    assert not core.due(10 * MS)


def test_when_the_newest_chunk_has_run_and_ended_expect_the_next_at_once():
    core = make_core()
    core.start('s', 'reach')
    core.sent('s', 0)
    assert not core.newest_over(1 * MS)
    running(core, 10 * MS, 4)
    assert not core.newest_over(20 * MS)
    core.on_execution(dataclasses.replace(IDLE, stamp_ns=30 * MS))
    assert core.newest_over(30 * MS)
    assert core.due(30 * MS)


def test_when_the_newest_chunk_was_not_taken_expect_it_over_after_retry():
    core = make_core()
    core.start('s', 'reach')
    core.sent('s', 0)
    assert not core.newest_over(199 * MS)
    assert core.newest_over(200 * MS)


def test_when_the_newest_chunk_begins_later_than_retry_expect_no_other_before_it():
    core = make_core()
    core.start('s', 'reach')
    core.sent('s', 0)
    core.placed(500 * MS, 0)
    core.on_execution(dataclasses.replace(IDLE, stamp_ns=699 * MS))
    assert not core.due(699 * MS)
    assert core.due(700 * MS)
    core.sent('s', 700 * MS)
    assert core.newest_over(900 * MS)  # one that says nothing of its begin was wanted at once


def test_when_the_guard_is_latched_expect_nothing_due_and_its_state():
    core = make_core()
    core.start('s', 'reach')
    core.on_execution(
        dataclasses.replace(IDLE, readiness=GuardReadiness.LATCHED, state_name='FAULT')
    )
    assert core.blocked_by(0) == 'the guard is FAULT'


@pytest.mark.parametrize(('session_id', 'ahead'), [('s', 12), ('older', 0)])
def test_when_a_plan_runs_expect_what_is_left_of_this_session_alone(session_id, ahead):
    core = make_core()
    core.start('s', 'reach')
    running(core, 0, 4, session_id=session_id)
    assert core.samples_ahead(16) == ahead
