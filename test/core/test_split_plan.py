# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A plan that comes in several messages, each of which goes on where the one before is running."""

import numpy as np
from guard_world import HOME, World
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.guard_config import GuardConfig

STEPS = 80


def executed(
    data: np.ndarray, period_s: float, messages: list[int], split: int
) -> tuple[np.ndarray, World]:
    """Positions commanded at each tick; `messages`: ticks at which the next samples are sent.

    Every message begins two samples before the present one and ends `split` samples after it, the
    last one with the plan.
    """
    world = World(GuardConfig(chunk_silence_s=30.0))
    world.arm()
    start_ns = world.ros_ns + 10_000_000
    ticks = round((STEPS - 1) * period_s / 0.01) + 60
    positions = []
    for tick in range(ticks):
        chunks = ()
        if tick in messages:
            now = max(0, round((world.ros_ns - start_ns) * 1e-9 / period_s) - 2)
            last = tick == messages[-1]
            end = STEPS if last else min(now + split, STEPS)
            chunks = (world.chunk(data[now:end], period_s,
                                  stamp_ns=start_ns + round(now * period_s * 1e9)),)
        out = world.tick(chunks=chunks)
        if chunks:
            assert [report.verdict for report in out.reports] == ['accepted']
        positions.append(out.execution.commanded_position)
    return np.array(positions), world


@settings(max_examples=4)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1 / 30, 0.05, 0.1]), st.integers(1, 5))
def test_when_a_plan_is_appended_in_messages_expect_it_executed_as_in_one(
    seed: int, period_s: float, count: int
) -> None:
    rng = np.random.default_rng(seed)
    t = period_s * np.arange(STEPS)[:, None]
    data = HOME + rng.uniform(-0.2, 0.2, 7) * (1.0 - np.cos(rng.uniform(0.3, 1.2, 7) * t))
    # Once the motion has joined the first message, and before that ends.
    later = np.sort(rng.choice(np.arange(60, 100), count, replace=False)).tolist()
    whole, _ = executed(data, period_s, [0], 40)
    parts, world = executed(data, period_s, [0, *later], 40)
    np.testing.assert_allclose(parts, whole, atol=1e-9)
    assert world.core.counters.accepted == count + 1
