# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Joints without end: samples a whole turn apart are the same pose, and no way is made of it."""

import dataclasses

import numpy as np
import pytest
from guard_world import HOME, NAMES, World, fr3_limits, smooth_plan
from hypothesis import given
from hypothesis import strategies as st

from vla_deploy.core.angles import TURN, nearest_turn, unwound
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limits import JointLimits

WITHOUT_END = JointLimits.of([
    dataclasses.replace(joint, kind='continuous', lower=-np.inf, upper=np.inf, envelope=None)
    if joint.name == NAMES[6] else joint for joint in fr3_limits().joints])
turns = st.lists(st.integers(-3, 3), min_size=6, max_size=6)


def sweep() -> np.ndarray:
    """The last joint past a half turn."""
    return smooth_plan(HOME, 3.0 * np.eye(7)[6], 100, 0.05)


def executed(limits: JointLimits, data: np.ndarray) -> tuple[str, np.ndarray]:
    """Verdict on a plan, and where the joints are commanded to be at its end."""
    world = World(GuardConfig(chunk_silence_s=9.0), limits)
    world.arm()
    verdict = world.tick(chunks=(world.chunk(data),)).reports[0].verdict
    world.ticks(520)
    return verdict, np.asarray(world.commanded()[0])


def test_when_a_plan_wraps_on_a_joint_without_end_expect_the_motion_to_go_on_through() -> None:
    data = sweep()
    assert data[-1, 6] > np.pi + 0.3
    wrapped = data.copy()
    wrapped[:, 6] = (wrapped[:, 6] + np.pi) % TURN - np.pi
    assert np.abs(np.diff(wrapped[:, 6])).max() > 6.0
    straight, wraps = executed(WITHOUT_END, data), executed(WITHOUT_END, wrapped)
    assert (straight[0], wraps[0]) == ('accepted', 'accepted')
    np.testing.assert_allclose(wraps[1], straight[1], atol=1e-9)
    assert executed(fr3_limits(), wrapped)[0] != 'accepted'


def test_when_a_plan_begins_a_turn_away_expect_the_nearest_turn_and_other_joints_refused() -> None:
    for column, verdict in ((6, 'accepted'), (0, 'refused')):
        data = sweep()
        data[:, column] -= 2 * TURN
        assert executed(WITHOUT_END, data)[0] == verdict


@given(turns, turns)
def test_when_unwound_expect_the_same_poses_less_than_half_a_turn_apart(
    first: list[int], second: list[int]
) -> None:
    smooth = np.column_stack((np.linspace(0.2, 2.2, 6), np.linspace(1.0, -1.0, 6)))
    given_data = smooth + TURN * np.column_stack((first, second))
    endless = np.array([True, False])
    made = unwound(given_data, smooth[0], endless)
    np.testing.assert_allclose(made[:, 0], smooth[:, 0], atol=1e-9)
    assert (made[:, 1] == given_data[:, 1]).all()
    assert unwound(made, smooth[0], endless) is made


@pytest.mark.parametrize('turned', [-2, 0, 1])
def test_when_measured_turns_away_expect_the_one_nearest_to_the_reference(turned: int) -> None:
    reference = np.array([3.0, 3.0])
    position = np.array([2.9, 2.9]) + TURN * turned
    found = nearest_turn(position, reference, np.array([True, False]))
    np.testing.assert_allclose(found, [2.9, position[1]])


def test_when_nothing_is_commanded_yet_expect_the_turn_nearest_to_what_is_measured() -> None:
    world = World(GuardConfig(shadow=True), WITHOUT_END)
    world.arm()
    data = sweep()
    data[:, 6] += TURN
    out = world.tick(chunks=(world.chunk(data),))
    assert out.reports[0].verdict == 'accepted'
    shadow = world.ticks(30).shadow_trajectory
    assert shadow is not None
    assert np.abs(shadow.position[:, 6] - HOME[6]).max() < 0.5
