# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The committed policy in closed loop behind the guard's core, a few episodes of each kind."""

import pytest
from reach_rollout import Loop, Result, summary, torch_policy

from vla_deploy.sim import reach


@pytest.fixture(scope='module')
def loop(reach_checkpoint_folder):
    with Loop(torch_policy(reach_checkpoint_folder)) as made:
        yield made


@pytest.mark.parametrize('seed', [900, 901, 902])
def test_when_a_cube_is_named_expect_the_arm_above_it_and_no_limit_touched(loop, seed):
    result = loop.run('named', seed)
    assert result.distance_m <= reach.SUCCESS_M
    assert result.chunks >= 6
    assert result.clamped == result.refused == 0


def test_when_another_cube_is_named_than_drawn_expect_that_one(loop):
    result = loop.run('other', 903)
    assert result.wanted != result.drawn
    assert result.distance_m <= reach.SUCCESS_M
    assert result.drawn_distance_m > reach.SUCCESS_M


def test_when_images_are_black_expect_a_miss(loop):
    assert loop.run('black', 904).distance_m > reach.SUCCESS_M


def test_when_results_are_summed_up_expect_counts_by_distance_and_colour():
    def result(colour, distance_m):
        return Result('named', 0, colour, colour, distance_m, distance_m, colour, 7, 1, 0, {'r': 2})

    figures = summary([result('red', 0.01), result('red', 0.025), result('blue', 0.2)])
    assert figures['within_3_cm'] == 2
    assert figures['within_2_cm'] == 1
    assert figures['by_colour'] == {'red': [2, 2], 'green': [0, 0], 'blue': [0, 1]}
    assert figures['clamped'] == 3
    assert figures['rules'] == {'r': 6}
