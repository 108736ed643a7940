# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a run of the demonstration says of itself, and when it calls itself failed."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_deploy.demo.episode import EpisodePlan, EpisodeResult, StillDetector, judge, plan_episodes
from vla_deploy.demo.excess import Excess
from vla_deploy.demo.graph import Recording
from vla_deploy.demo.report import build_report, last_line, shortcomings, table, write_report
from vla_deploy.demo.statistics import wilson_interval
from vla_deploy_msgs.msg import GuardStatus, PolicyStatus


def result(index=0, kind='reach', colour='red', drawn='red', distance_m=0.01, nearest='',
           ended='still'):
    plan = EpisodePlan(index, kind, index, colour, drawn)
    return EpisodeResult(plan, distance_m, nearest or colour, 3.0, ended)


def report_of(results=(), excess=None, commands=5, chunks_s=(0.02,), **guard):
    recording = Recording()
    recording.stages_s['chunk'] += chunks_s
    status = GuardStatus(commands_published=commands, **guard)
    return build_report(results, recording, status, PolicyStatus(), excess or Excess(0.5, 0.5, 1.0))


def test_when_all_went_well_expect_no_shortcoming():
    assert shortcomings(report_of([result(), result(1, ended='time_limit')])) == []


def test_when_a_cube_is_missed_expect_no_shortcoming():
    """A policy that misses is for the reader to judge; the graph has done its part."""
    assert shortcomings(report_of([result(distance_m=0.3)])) == []


@pytest.mark.parametrize(
    ('changes', 'line'),
    [
        ({'excess': Excess(velocity=1.01)}, 'a limit was exceeded'),
        ({'excess': Excess(position=float('nan'))}, 'a limit was exceeded'),
        ({'commands': 0}, 'the guard commanded nothing'),
        ({'chunks_s': ()}, 'inference sent no chunk'),
        ({'results': [result(), result(1, ended='guard FAULT: joint states are old')]},
         'episode 2 was cut short: guard FAULT: joint states are old'),
    ],
)
def test_when_the_graph_did_not_do_its_part_expect_a_line_that_says_how(changes, line):
    assert shortcomings(report_of(**changes)) == [line]


def test_when_a_run_is_summed_up_expect_the_successes_their_interval_and_the_latency():
    results = [result(i, distance_m=0.029 if i < 98 else 0.031) for i in range(100)]
    line = last_line(report_of(results, chunks_s=(0.0142,)))
    assert line == 'demo: 98 of 100 reached (95 % CI 93–99 %), chunk latency p95 14.2 ms'


def test_when_episodes_differ_expect_each_counted_where_it_belongs():
    report = report_of([
        result(0, colour='red', drawn='red', distance_m=0.015),
        result(1, colour='blue', drawn='red', distance_m=0.025),
        result(2, colour='green', drawn='blue', distance_m=0.2, nearest='blue'),
        result(3, kind='blank', distance_m=0.3),
        result(4, kind='black', distance_m=0.01),
    ])
    assert (report['reached']['successes'], report['reached']['episodes']) == (2, 3)
    assert report['reached_within_2_cm']['successes'] == 1
    assert [report['by_colour'][c]['successes'] for c in ('red', 'blue', 'green')] == [1, 1, 0]
    other = report['told_another_than_drawn']
    assert (other['at_the_named_cube']['successes'], other['at_the_named_cube']['episodes']) == (
        1, 2)
    assert other['at_the_drawn_cube']['successes'] == 1
    assert report['controls']['blank']['successes'] == 0
    assert report['controls']['black']['successes'] == 1
    reached = [episode['reached'] for episode in report['episodes']]
    assert reached == [True, True, False, False, True]


def test_when_a_report_is_written_expect_strict_json_and_nothing_beside_it(tmp_path):
    report = report_of([result()], Excess(acceleration=float('nan')),
                       rule_names=['velocity'], rule_counts=[3])
    write_report(report, tmp_path / 'new' / 'report.json')
    read = json.loads((tmp_path / 'new' / 'report.json').read_text())
    assert read == report
    assert read['guard']['violations'] == {'velocity': 3}
    assert read['largest_use_of_limits']['acceleration'] is None
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['report.json']


def test_when_a_report_is_printed_expect_limits_stages_and_what_was_not_run():
    text = table(report_of([result()], Excess(0.5, 0.25, float('nan'), 0.0)))
    assert 'position 50 %, velocity 25 %, acceleration not a number' in text
    assert 'chunk          20.000' in text
    assert [line.split()[-1] for line in text.splitlines() if 'control' in line] == ['run', 'run']


@pytest.mark.parametrize(
    ('successes', 'trials', 'low', 'high'),
    [(0, 0, 0.0, 1.0), (0, 3, 0.0, 0.5615), (3, 3, 0.4385, 1.0), (98, 100, 0.9300, 0.9945)],
)
def test_when_successes_are_counted_expect_the_interval_of_wilson(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_when_any_number_succeeds_expect_the_rate_inside_its_interval(counts):
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    assert (low == 0.0) == (successes == 0)
    assert (high == 1.0) == (successes == trials)


def test_when_another_seed_is_given_expect_other_scenes_and_the_same_colours():
    plans, others = plan_episodes(6, 2, 1), plan_episodes(6, 2, 2)
    assert [p.colour for p in plans[:6]] == ['red', 'blue', 'green'] * 2
    assert [p.kind for p in plans[6:]] == ['blank', 'blank', 'black', 'black']
    assert plans == plan_episodes(6, 2, 1)
    assert not {p.seed for p in plans} & {p.seed for p in others}


def test_when_no_text_is_to_be_told_expect_a_blank_instruction_and_else_the_colour():
    blank, told = (dataclasses.replace(result().plan, kind=kind) for kind in ('blank', 'reach'))
    assert blank.instruction.strip() == ''
    assert told.instruction == 'reach the red cube'


def test_when_the_tool_stands_still_expect_the_end_but_not_before_it_could_have_begun():
    detector = StillDetector(0)
    said = [detector.add(tick * 10_000_000, np.zeros(3)) for tick in range(200)]
    assert said.index('still') == 150


def test_when_the_tool_never_stands_expect_the_end_by_the_time_limit():
    detector = StillDetector(0)
    said = [detector.add(tick * 10_000_000, np.array([tick * 1e-3, 0.0, 0.0]))
            for tick in range(801)]
    assert said.index('time_limit') == 800
    assert not any(said[:800])


def test_when_an_episode_is_judged_expect_the_distance_to_the_named_cube_and_the_nearest_one():
    goals = {'red': np.zeros(3), 'blue': np.array([0.3, 0.0, 0.0]), 'green': np.ones(3)}
    judged = judge(result(colour='red').plan, np.array([0.25, 0.0, 0.0]), goals, 2.0, 'still')
    assert (judged.distance_m, judged.nearest) == (0.25, 'blue')
    assert not judged.reached
