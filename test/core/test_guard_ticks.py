# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The work of a new plan, spread over ticks: judged, joined and published in three of them."""

import numpy as np
from guard_world import HOME, World, smooth_plan

from vla_deploy.core.guard_config import GuardConfig


def moving_world() -> tuple[World, np.ndarray]:
    """A world that follows a plan, and samples of it that go on as another one."""
    world = World(GuardConfig(chunk_silence_s=10.0))
    world.arm()
    data = smooth_plan(HOME, np.full(7, 0.3), 60, 0.05)
    world.tick(chunks=(world.chunk(data),))
    world.ticks(59)
    return world, data[12:]


def published(world: World, sample: np.ndarray) -> bool:
    """Whether the newest trajectory holds these positions as a knot, to the bit."""
    trajectory = world.outputs[-1].trajectory
    return bool((trajectory.position == sample).all(axis=1).any())


def test_when_a_plan_follows_another_expect_it_judged_joined_and_published_tick_by_tick() -> None:
    world, rest = moving_world()
    fresh = rest + 1e-5 * np.linspace(1.0, 2.0, len(rest))[:, None]
    assert world.tick(chunks=(world.chunk(fresh),)).reports[0].verdict == 'accepted'
    seen = []
    for _ in range(12):
        world.tick()
        seen.append(any(published(world, sample) for sample in fresh[:8]))
    assert seen[:1] == [False]
    assert seen[1]


def test_when_the_tick_that_should_publish_is_late_expect_the_plan_followed_all_the_same() -> None:
    world, rest = moving_world()
    world.tick(chunks=(world.chunk(rest),))
    world.tick()
    world.tick(0.04)
    assert any(published(world, sample) for sample in rest[:8])
    world.ticks(240)
    np.testing.assert_allclose(world.robot_state(world.ros_ns)[0], rest[-1], atol=1e-6)


def test_when_nothing_runs_expect_a_plan_published_in_the_tick_after_it_was_judged() -> None:
    world = World()
    world.arm()
    data = smooth_plan(HOME, np.full(7, 0.3), 60, 0.05)
    world.tick(chunks=(world.chunk(data),))
    world.tick()
    assert any(published(world, sample) for sample in data[1:8])
