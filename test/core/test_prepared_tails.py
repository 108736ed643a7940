# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Braking tails that are made before they are needed: they save time, and change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from fuzz_guard import random_data
from guard_world import HOME, World, fr3_limits
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vla_deploy.core.command import CommandLine
from vla_deploy.core.guard_config import GuardConfig

TICKS = 240
Sent = list[tuple[bytes, bytes, bytes]]


def sent(seed: int, jerk: float | None) -> Sent:
    """All that a guard sends while plans of every kind come at any time, safe ones mostly."""
    rng = np.random.default_rng(seed)
    config = GuardConfig(start_jump=10.0, trip_count=1000, chunk_silence_s=5.0, max_lag_s=10.0)
    world = World(config, fr3_limits(20.0, jerk))
    world.arm()
    for _ in range(TICKS):
        chunks = ()
        if rng.random() < 0.05:
            period_s = float(rng.choice([0.02, 0.05]))
            data = HOME + rng.normal(0, 0.05, 7) * np.sin(
                rng.uniform(0.5, 3.0) * period_s * np.arange(30))[:, None]
            if rng.random() < 0.2:
                data = random_data(rng, HOME, period_s)
            chunks = (world.chunk(data, period_s=period_s),)
        world.tick(chunks=chunks)
    return [(t.times.tobytes(), t.position.tobytes(), t.velocity.tobytes())
            for out in world.outputs if (t := out.trajectory) is not None]


@pytest.fixture(scope='module')
def unprepared():
    """Return a function that gives what a guard sends that makes each tail when it needs it."""

    def run(seed: int, jerk: float | None) -> Sent:
        with pytest.MonkeyPatch.context() as patch:
            for name in ('expect', '_look_ahead'):
                patch.setattr(CommandLine, name, lambda *arguments: None)
            return sent(seed, jerk)

    return run


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 5000.0]))
@example(0, 5000.0)  # joins a plan at the very sample from which it brakes first
def test_when_tails_are_prepared_expect_the_same_bytes_sent_as_without(
    unprepared, seed: int, jerk: float | None
) -> None:
    assert sent(seed, jerk) == unprepared(seed, jerk)
