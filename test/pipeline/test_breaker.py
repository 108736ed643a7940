# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A policy that fails is left alone for a while, and then tried once."""

import pytest

from vla_deploy.pipeline.breaker import CircuitBreaker


def tripped(at_s=100.0):
    breaker = CircuitBreaker(3, 5.0)
    for _ in range(3):
        breaker.begin(at_s)
        breaker.failed(at_s, 'out of memory')
    return breaker


def test_when_faults_are_fewer_than_allowed_or_not_in_a_row_expect_closed():
    breaker = CircuitBreaker(3, 5.0)
    for _ in range(4):
        breaker.failed(0.0, 'x')
        breaker.failed(0.0, 'x')
        breaker.succeeded()
    assert breaker.state(0.0) == 'closed'
    assert breaker.allows(0.0)


def test_when_input_cannot_be_used_expect_it_never_to_open():
    breaker = CircuitBreaker(1, 5.0)
    for _ in range(100):
        breaker.begin(0.0)
        breaker.abandoned()
    assert breaker.state(0.0) == 'closed'


@pytest.mark.parametrize(
    ('now_s', 'state', 'retry_after_s'), [(104.0, 'open', 1.0), (105.0, 'half_open', 0.0)]
)
def test_when_faults_are_enough_expect_open_until_its_time_is_up(now_s, state, retry_after_s):
    breaker = tripped()
    assert breaker.state(now_s) == state
    assert breaker.retry_after_s(now_s) == retry_after_s
    assert breaker.allows(now_s) is (state == 'half_open')


def test_when_refused_expect_the_count_the_fault_and_the_time_told():
    text = tripped().refusal(103.0)
    assert text == (
        'policy left alone: inference failed 3 times in a row, the last time with '
        '"out of memory"; retry after 2.0 s'
    )


def test_when_half_open_expect_one_attempt_at_a_time():
    breaker = tripped()
    breaker.begin(105.0)
    assert not breaker.allows(105.0)
    breaker.abandoned()
    assert breaker.allows(105.0)


def test_when_the_attempt_succeeds_expect_closed():
    breaker = tripped()
    breaker.begin(105.0)
    breaker.succeeded()
    assert breaker.state(105.0) == 'closed'


def test_when_the_attempt_fails_expect_open_again_at_once():
    breaker = tripped()
    breaker.begin(105.0)
    breaker.failed(106.0, 'x')
    assert breaker.state(110.0) == 'open'
    assert breaker.retry_after_s(110.0) == 1.0
