# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded reference cases through torch and through the served bundle, and the evidence file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vla_deploy.export.backbone import load_tokenizer
from vla_deploy.export.evidence import evidence_for
from vla_deploy.export.families import FAMILIES, family_of
from vla_deploy.export.golden import (
    GOLDENS_OF,
    compare_golden,
    golden_cases,
    golden_checkpoint,
)
from vla_deploy.export.torch_pipeline import TorchPipeline

GOLDENS = Path(__file__).parents[1] / 'goldens'
SETS = [(family, name) for family, names in GOLDENS_OF.items() for name in names]
BARS = {
    'images_max_abs': 1e-6,
    'state_scaled_max_abs': 1e-6,
    'torch_chunk_max_abs': 2e-6,
    'torch_actions_scaled_max_abs': 5e-6,
    'graph_chunk_max_abs': 2e-6,
    'served_chunk_max_abs': 5e-6,
    'served_actions_scaled_max_abs': 5e-6,
    'guided_torch_chunk_max_abs': 2e-6,
    'guided_served_chunk_max_abs': 1e-5,
}
# Another CPU rounds differently in the last place.
SAME_FIGURE = 2e-6


@pytest.fixture(scope='module', params=SETS)
def figures(request, golden_bundle):
    """Return the family and name of a golden folder and its figures, computed now."""
    family, name = request.param
    return family, name, compare_golden(GOLDENS / name, golden_bundle(name), threads=1)


def test_when_compared_with_the_reference_expect_every_bar_met(figures):
    *_, found = figures
    assert found['cases'] == 6
    assert found['guided_cases'] == 7
    assert found['tokens_equal']
    assert found['token_mask_equal']
    assert found['image_mask_equal']
    assert found['min_cosine'] >= 0.9999999
    for what, bar in BARS.items():
        assert found[what] <= bar, what


def test_when_evidence_is_regenerated_expect_what_is_committed(figures):
    family, name, found = figures
    committed = evidence_for(family)['cases'][name]
    assert set(found) == set(committed)
    for what, value in found.items():
        assert value == pytest.approx(committed[what], abs=SAME_FIGURE), what


@pytest.mark.parametrize('family', FAMILIES)
def test_when_sources_change_expect_evidence_made_again(family):
    changed = evidence_for(family)['changed_sources']
    assert not changed, f'run: python -m tools.export.evidence {family}'


@pytest.mark.parametrize('name', [name for _, name in SETS])
def test_when_torch_pipeline_preprocesses_expect_the_references_inputs(name):
    checkpoint = golden_checkpoint(GOLDENS / name)
    model, _ = family_of(checkpoint).load(checkpoint)
    contract = family_of(checkpoint).contract(checkpoint)
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    pipeline = TorchPipeline(model, contract, checkpoint.processors.statistics, tokenizer)
    for case in golden_cases(GOLDENS / name, contract):
        own, expected = pipeline.inputs(case.observation), case.model_inputs(contract)
        assert np.abs(own.images.numpy() - expected.images.numpy()).max() <= 1e-6
        assert np.abs(own.state.numpy() - expected.state.numpy()).max() <= 1e-6
        for what in ('image_mask', 'tokens', 'token_mask'):
            assert np.array_equal(getattr(own, what).numpy(), getattr(expected, what).numpy())
