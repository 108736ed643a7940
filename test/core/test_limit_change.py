# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Limits that are tightened while running: only tighter, after braking, each an event."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from guard_world import HOME, GuardState, World, fr3_limits, smooth_plan

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import Inputs
from vla_deploy.core.journal import (
    Genesis,
    JournalStep,
    core_of,
    difference,
    genesis_of,
    outcome_of,
    step_record,
)
from vla_deploy.core.limit_change import wider
from vla_deploy.core.limits import JointLimits, VelocityEnvelope
from vla_deploy.core.plain import from_plain
from vla_deploy.core.trajectory import trajectory_extrema
from vla_deploy.core.workspace_limits import Region, WorkspaceLimits

CELL = Region('cell', ('hand',), ((0.0, 0.0, 1.0),), (0.1,), 'test')


def changed(**figures: Any) -> JointLimits:
    """The limits of the FR3 with other figures of its first joint."""
    joints = fr3_limits(jerk=5000.0).joints
    return JointLimits.of([dataclasses.replace(joints[0], **figures), *joints[1:]])


def with_cell(*regions: Region) -> JointLimits:
    return JointLimits.of(fr3_limits().joints, (), WorkspaceLimits(regions, ()))


@pytest.mark.parametrize(('tighter', 'looser', 'key'), [
    ({'lower': -2.0}, {'lower': -2.8}, 'position_lower'),
    ({'upper': 2.0}, {'upper': 2.8}, 'position_upper'),
    ({'velocity': 1.0}, {'velocity': 2.7}, 'velocity'),
    ({'acceleration': 5.0}, {'acceleration': 10.1}, 'acceleration'),
    ({'jerk': 4000.0}, {'jerk': 5001.0}, 'jerk'),
    ({'source': 'a better one'}, {'jerk': None}, 'jerk'),
    ({'envelope': VelocityEnvelope(11.0, 0.4, -2.7, 2.7)},
     {'envelope': VelocityEnvelope(13.0, 0.3, -2.75, 2.75)}, 'position_dependent_velocity'),
    ({'effort': 1.0}, {'envelope': None}, 'position_dependent_velocity'),
    ({'name': 'fr3_joint1'}, {'placeholder': True}, 'placeholder'),
    ({'name': 'fr3_joint1'}, {'kind': 'prismatic'}, 'type is prismatic'),
])
def test_when_figures_change_expect_only_what_allows_less(
    tighter: dict[str, Any], looser: dict[str, Any], key: str
) -> None:
    assert wider(changed(**tighter), changed()) == ''
    assert key in wider(changed(**looser), changed())
    assert 'fr3_joint1' in wider(changed(**looser), changed())


def test_when_the_workspace_changes_expect_only_what_allows_less() -> None:
    higher = dataclasses.replace(CELL, offsets=(0.2,))
    more = dataclasses.replace(CELL, links=('hand', 'elbow'))
    other = dataclasses.replace(CELL, name='other')
    assert wider(with_cell(CELL), fr3_limits()) == ''
    assert wider(with_cell(higher, other), with_cell(CELL)) == ''
    assert wider(with_cell(more), with_cell(CELL)) == ''
    assert wider(with_cell(CELL), with_cell(higher)) == 'workspace.cell is wider'
    assert wider(with_cell(CELL), with_cell(more)) == 'workspace.cell is wider'
    assert wider(with_cell(other), with_cell(CELL)) == 'workspace.cell is missing'
    assert wider(fr3_limits(), with_cell(CELL)) == 'workspace.cell is missing'


def test_when_other_joints_are_given_expect_them_named() -> None:
    fewer = JointLimits.of(fr3_limits().joints[1:])
    assert 'joints are fr3_joint2' in wider(fewer, fr3_limits())


def in_motion() -> World:
    world = World()
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.6), 41, 0.05)),))
    world.ticks(100)
    assert np.abs(world.commanded()[1]).max() > 0.5
    return world


def test_when_tightened_in_motion_expect_a_stop_under_the_old_limits_then_the_new() -> None:
    world = in_motion()
    slow = fr3_limits(acceleration=2.0)
    out = world.tick(tighten=slow)
    assert out.answers[-1].success
    assert 'once the robot stands' in out.answers[-1].message
    assert out.state is GuardState.HOLD
    braking = 0
    while world.core.limits is not slow:
        out = world.tick(chunks=(world.chunk(smooth_plan(HOME, np.zeros(7), 9, 0.05)),))
        assert out.state is GuardState.HOLD  # no plan before the limits are in force
        braking += 1
    assert 5 < braking < 20  # at 10 rad/s^2; at 2 it would take 40
    (noted,) = [v for v in out.violations if v.rule == 'limits']
    assert slow.sha256 in noted.message
    world.judge.limits = slow
    here = world.commanded()[0]
    data = smooth_plan(here, np.full(7, -0.4), 41, 0.02)  # needs more than 2 rad/s^2
    out = world.tick(chunks=(world.chunk(data, period_s=0.02),))
    assert out.reports[0].verdict == 'clamped'
    world.ticks(200)


def test_when_limits_are_wider_somewhere_expect_a_refusal_and_the_motion_to_go_on() -> None:
    world = in_motion()
    before = world.core.limits
    out = world.tick(tighten=fr3_limits(acceleration=10.1))
    (answer,) = out.answers
    assert not answer.success
    assert 'joint_limits.fr3_joint1.acceleration is 10.1, wider than 10' in answer.message
    assert out.state is GuardState.ARMED
    assert world.core.limits is before


def test_when_nothing_moves_expect_them_in_force_at_once() -> None:
    world = World()
    world.tick()
    slow = fr3_limits(acceleration=2.0)
    (answer,) = world.tick(tighten=slow).answers
    assert (answer.success, answer.message) == (True, 'taken')
    assert world.core.limits is slow
    world.arm()
    assert world.core.state is GuardState.HOLD
    slower = fr3_limits(acceleration=1.0)
    world.tick(tighten=slower)
    assert world.core.limits is slower  # at rest already


def test_when_tightened_in_shadow_expect_them_in_force_at_once_for_what_would_be_sent() -> None:
    world = World(GuardConfig(shadow=True))
    world.arm()
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.6), 41, 0.05)),))
    world.ticks(20)
    slow = fr3_limits(acceleration=0.5)
    out = world.tick(tighten=slow)
    assert (out.state, out.answers[-1].message) == (GuardState.SHADOW, 'taken')
    assert world.core.limits is slow
    world.tick(chunks=(world.chunk(smooth_plan(HOME, np.full(7, 0.6), 41, 0.05)),))
    for _ in range(200):
        shadow = world.tick().shadow_trajectory
        assert shadow is not None
        assert (trajectory_extrema(shadow).acceleration <= 0.5).all()


def test_when_stopped_for_good_before_it_stands_expect_them_in_force_after_the_reset() -> None:
    world = in_motion()
    slow = fr3_limits(acceleration=2.0)
    world.tick(tighten=slow)
    world.tick(estop_request=True)
    world.ticks(60)
    assert world.core.limits is not slow
    world.tick(reset=True)
    assert world.core.limits is slow


def test_when_replayed_from_the_journal_expect_the_same_change() -> None:
    world = in_motion()
    genesis = from_plain(Genesis, {k: v for k, v in genesis_of(
        fr3_limits(), world.config, {}, {}).items() if k != 'kind'})
    again, live = core_of(genesis), core_of(genesis)
    for i in range(5):
        now = world.ros_ns + i * 10_000_000
        inputs = Inputs(joint_state=world.measured(), arm=i == 1,
                        tighten=fr3_limits(acceleration=2.0) if i == 3 else None)
        inputs = dataclasses.replace(inputs, joint_state=dataclasses.replace(
            inputs.joint_state, stamp_ns=now))
        out = live.step(now, now, inputs)
        record = step_record(now, now, inputs, out)
        read = from_plain(Inputs, record['in'])
        replayed = again.step(now, now, read)
        assert difference(JournalStep(i, now, now, read, outcome_of(out)), replayed) == ''
    assert again.limits.sha256 == live.limits.sha256 == fr3_limits(acceleration=2.0).sha256
