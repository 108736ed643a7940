# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How often in a row the robot must be measured far from its command, and what begins it anew."""

import numpy as np
from guard_world import HOME, GuardState, World, smooth_plan

from vla_deploy.core.guard_config import GuardConfig

FAR = 0.3
CONFIG = GuardConfig(tracking_error=0.1, tracking_error_ticks=5)


def held() -> World:
    world = World(CONFIG)
    world.arm()
    world.ticks(20)
    return world


def test_when_the_robot_is_far_off_expect_a_fault_at_the_last_of_so_many_ticks() -> None:
    world = held()
    assert world.stray(4, FAR).state is GuardState.HOLD
    out = world.stray(1, FAR)
    assert out.state is GuardState.FAULT
    assert [v.rule for v in out.violations] == ['tracking_error']


def test_when_one_measurement_between_is_near_expect_the_count_to_begin_anew() -> None:
    world = held()
    world.stray(4, FAR)
    world.stray(1, 0.05)
    assert world.stray(4, FAR).state is GuardState.HOLD


def test_when_the_clock_jumps_back_between_expect_the_count_to_begin_anew() -> None:
    world = held()
    world.stray(4, FAR)
    world.measure = False
    world.jump(-0.05)
    assert world.stray(4, FAR).state is GuardState.HOLD
    assert world.stray(1, FAR).state is GuardState.FAULT


def test_when_the_robot_is_moved_by_another_in_shadow_expect_no_fault() -> None:
    world = World(GuardConfig(shadow=True, tracking_error=0.1, tracking_error_ticks=5,
                              start_jump=1.0))
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.5), 41, 0.05)),))
    assert world.core.state is GuardState.SHADOW
    out = world.stray(30, FAR)
    assert out.state is GuardState.SHADOW
    assert out.shadow_trajectory is not None
