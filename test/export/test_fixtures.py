# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the same each time, and covering what differs between observations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vla_deploy.core.contract import Normalization
from vla_deploy.export.fixtures import make_cases
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.bundle import NORMALIZER, open_bundle
from vla_deploy.pipeline.normalize import VectorNormalizer, read_statistics


@pytest.fixture
def contract_and_statistics(golden_bundle):
    folder = golden_bundle('smolvla_3cam')
    return open_bundle(folder).contract, read_statistics(folder / NORMALIZER)


def test_when_made_twice_expect_the_same(contract_and_statistics):
    for a, b in zip(*(make_cases(*contract_and_statistics) for _ in range(2)), strict=True):
        assert a.observation.instruction == b.observation.instruction
        assert np.array_equal(a.noise, b.noise)
        assert np.array_equal(a.observation.state, b.observation.state)
        for name, image in a.observation.images.items():
            assert np.array_equal(image, b.observation.images[name])


def test_when_made_expect_another_size_an_absent_camera_and_a_long_text(golden_bundle):
    folder = golden_bundle('smolvla_3cam')
    policy = Policy.load(folder, threads=1)
    cases = make_cases(policy.contract, read_statistics(folder / NORMALIZER))
    chunks = [policy.infer(case.observation, case.noise) for case in cases]
    sizes = {image.shape for case in cases for image in case.observation.images.values()}
    assert len(sizes) == 2
    assert [bool(chunk.missing_cameras) for chunk in chunks] == [False, False, True]
    assert [chunk.prompt_truncated for chunk in chunks] == [False, False, True]


@pytest.mark.parametrize(
    ('mode', 'names'),
    [('mean_std', ()), ('quantiles', ('q01', 'q99')), ('min_max', ('min', 'max'))],
)
def test_when_normalised_expect_states_of_ordinary_size(contract_and_statistics, mode, names):
    contract, statistics = contract_and_statistics
    state = dataclasses.replace(contract.state, normalization=Normalization(mode, 1e-8))
    low, high = -np.arange(1, 7, dtype=np.float32), np.arange(2, 8, dtype=np.float32)
    if names:
        statistics = dict(zip((f'state.{n}' for n in names), (low, high), strict=True))
    contract = dataclasses.replace(contract, state=state)
    normalizer = VectorNormalizer('state', state, statistics)
    for case in make_cases(contract, statistics):
        assert np.abs(normalizer.normalize(case.observation.state)).max() < 5
