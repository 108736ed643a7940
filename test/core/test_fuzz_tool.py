# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The long fuzz itself: what it counts over its processes, and that it tells an excess."""

from __future__ import annotations

import math

import fuzz_guard
import pytest


def beyond_a_limit_at_seed_7(seed: int) -> int:
    """An episode in the place of a real one."""
    if seed == 7:
        raise fuzz_guard.ExcessError('velocity of fr3_joint1 beyond its limit')
    return 100 * seed


@pytest.fixture(autouse=True)
def _short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_guard, 'episode', beyond_a_limit_at_seed_7)


def test_when_two_processes_fuzz_expect_every_episode_that_began_in_the_sum(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fuzz_guard.fuzz(seed=1, workers=2, seconds=math.inf, joint_steps=1) == 0
    # Four wait or run when the first one ends.
    assert capsys.readouterr().out.splitlines()[-1] == 'fuzz: 1000 joint-steps, 0 excess'


def test_when_the_time_is_up_expect_no_further_episode(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_guard.fuzz(seed=1, workers=1, seconds=0.0, joint_steps=math.inf) == 0
    assert capsys.readouterr().out == 'fuzz: 0 joint-steps, 0 excess\n'


def test_when_an_episode_exceeds_a_limit_expect_its_seed_and_exit_code_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fuzz_guard.fuzz(seed=5, workers=1, seconds=math.inf, joint_steps=math.inf) == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "seed 7: ExcessError('velocity of fr3_joint1 beyond its limit')"
    assert last in (f'fuzz: {judged} joint-steps, 1 excess' for judged in (1100, 1900))
