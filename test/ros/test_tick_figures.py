# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Lateness of ticks: against the earliest phase seen, whichever tick that was."""

import pytest

from vla_deploy.ros.guard_status import TickFigures

PERIOD_NS = 10_000_000
MS = 1_000_000


def figures_of(*begins_ns: int) -> TickFigures:
    figures = TickFigures()
    for now_ns in begins_ns:
        figures.begin_tick(now_ns, PERIOD_NS)
    return figures


def ticks(count: int, late_ns: int = 0, first: int = 0) -> list[int]:
    return [5_000_000_000 + i * PERIOD_NS + late_ns for i in range(first, first + count)]


def test_when_ticks_are_punctual_expect_no_lateness():
    assert figures_of(*ticks(50)).lateness_s(100) == 0.0


def test_when_nothing_was_counted_expect_zero():
    assert TickFigures().lateness_s(99) == 0.0


@pytest.mark.parametrize('at', [0, 7, 49])
def test_when_one_tick_is_late_expect_its_lateness_also_if_it_is_the_first(at):
    begins = ticks(50)
    begins[at] += 3 * MS
    assert figures_of(*begins).lateness_s(100) == pytest.approx(0.003)
    assert figures_of(*begins).lateness_s(90) == 0.0


def test_when_most_ticks_are_late_after_a_late_first_one_expect_that_not_hidden():
    begins = [t + (0 if i == 20 else 4 * MS) for i, t in enumerate(ticks(50))]
    assert figures_of(*begins).lateness_s(50) == pytest.approx(0.004)


def test_when_a_tick_comes_so_late_that_the_timer_skips_one_expect_the_next_to_be_punctual():
    begins = ticks(20)
    del begins[11]
    begins[10] += 17 * MS
    figures = figures_of(*begins)
    assert figures.lateness_s(100) == pytest.approx(0.017)
    assert figures.lateness_s(90) == 0.0


def test_when_the_first_tick_was_late_by_most_of_a_period_expect_later_ones_judged_right():
    begins = ticks(30)
    begins[0] += 9 * MS
    begins[15] += 2 * MS
    figures = figures_of(*begins)
    assert figures.lateness_s(100) == pytest.approx(0.009)
    assert figures.lateness_s(95) == pytest.approx(0.002, abs=1.2e-3)


def test_when_the_clock_of_the_timer_drifts_expect_no_lateness_to_add_up():
    period_ns = PERIOD_NS + 500  # 50 parts in a million
    figures = figures_of(*(i * period_ns for i in range(30_000)))
    assert figures.lateness_s(99) < 0.0006
