# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Random tiny checkpoints: other sizes for each seed, the same for the same seed, and loadable."""

from __future__ import annotations

import pytest

from tools.export.random_cases import Draw, write_checkpoint
from vla_deploy.export.families import FAMILIES, family_of
from vla_deploy.export.golden import golden_checkpoint
from vla_deploy.pipeline.observation import check_observation


def made(family, seed, folder):
    """Return the checkpoint of a seed and the choices that are left to draw."""
    draw = Draw(family, seed)
    write_checkpoint(family, seed, folder, draw)
    return golden_checkpoint(folder), draw


@pytest.mark.parametrize('family', FAMILIES)
def test_when_written_expect_strict_loading_and_other_sizes_for_each_seed(family, tmp_path):
    models = []
    for seed in range(2):
        checkpoint, _ = made(family, seed, tmp_path / str(seed))
        models.append(family_of(checkpoint).load(checkpoint)[0])
    first, second = (model.config for model in models)
    assert first != second


@pytest.mark.parametrize('family', FAMILIES)
def test_when_the_seed_is_the_same_expect_the_same_weights_and_case(family, tmp_path):
    files, cases = [], []
    for name in ('a', 'b'):
        checkpoint, draw = made(family, 3, tmp_path / name)
        contract = family_of(checkpoint).contract(checkpoint)
        cases.append(draw.case(contract, checkpoint.processors.statistics, 0))
        check_observation(cases[-1].observation, contract)
        files.append(checkpoint.weights.read_bytes())
    assert files[0] == files[1]
    assert cases[0].noise.tobytes() == cases[1].noise.tobytes()
    assert cases[0].observation.instruction == cases[1].observation.instruction
