# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Equal events are held back and counted."""

from hypothesis import given
from hypothesis import strategies as st

from vla_deploy.ros.rate_limit import RateLimit

S = 1_000_000_000


def test_when_events_repeat_expect_one_and_a_count_with_the_next():
    limit = RateLimit(per_s=1.0)
    passed = [limit.passes('velocity', t) for t in (0, S // 4, S // 2, S)]
    assert passed == [0, None, None, 2]


def test_when_kinds_differ_expect_both():
    limit = RateLimit(per_s=1.0)
    assert limit.passes('velocity', 0) == 0
    assert limit.passes('position', 0) == 0


def test_when_rate_is_higher_expect_more_to_pass():
    slow, fast = RateLimit(1.0), RateLimit(10.0)
    times = [i * S // 10 for i in range(11)]
    count = lambda limit: sum(limit.passes('x', t) is not None for t in times)  # noqa: E731
    assert count(fast) > count(slow)


@given(st.lists(st.integers(0, 10 * S), max_size=60).map(sorted))
def test_whatever_the_times_expect_every_event_passed_or_counted(times):
    limit = RateLimit(per_s=2.0)
    answers = [limit.passes('x', t) for t in times]
    passed = [a for a in answers if a is not None]
    held = len(answers) - len(passed)
    still_held = (limit.passes('x', 100 * S) or 0) if times else 0
    assert sum(passed) + still_held == held
