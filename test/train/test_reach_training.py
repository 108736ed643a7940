# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop, on a handful of demonstrations."""

import dataclasses

import numpy as np
import pytest
import torch
from reach_checkpoint import CHUNK_STEPS, vector_statistics
from reach_model import build_model
from reach_training import Batches, Options, Phase, chunk_labels, initialise, train

from vla_deploy.sim import reach


@pytest.fixture(scope='module')
def statistics(few_demonstrations):
    return vector_statistics('observation.state', few_demonstrations.position) | vector_statistics(
        'action', few_demonstrations.goal.reshape(-1, 7)
    )


def run(data, statistics, steps, seed=0):
    torch.manual_seed(seed)
    model = build_model()
    initialise(model)
    phases = (Phase(steps, 2e-3, False, 1.0, 1.0),)
    options = Options(phases, images=8, draws=1, seed=seed, warmup_steps=5)
    reports = []
    batches = Batches(data, statistics, torch.device('cpu'))
    train(model, batches, options, reports.append, report_every=10)
    return model, reports


def test_when_it_trains_for_seconds_expect_every_loss_to_fall(few_demonstrations, statistics):
    _, reports = run(few_demonstrations, statistics, steps=60)
    first, last = reports[0], reports[-1]
    assert last.step == last.steps == 60
    assert last.flow < 0.8 * first.flow
    assert last.patch < 0.9 * first.patch
    assert last.goal < 0.9 * first.goal


def test_when_the_seed_is_the_same_expect_the_same_weights(few_demonstrations, statistics):
    models = [run(few_demonstrations, statistics, steps=2, seed=s)[0] for s in (3, 3, 4)]
    same, again, other = (next(m.expert.parameters()) for m in models)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_when_labels_are_made_in_torch_expect_the_expert_of_the_task():
    rng = np.random.default_rng(1)
    position, goal = rng.uniform(-1, 1, (5, 7)), rng.uniform(-1, 1, (5, 3, 7))
    ours = chunk_labels(torch.from_numpy(position), torch.from_numpy(goal)).numpy()
    theirs = reach.expert_chunk(np.repeat(position[:, None], 3, axis=1), goal, CHUNK_STEPS)
    assert np.abs(ours - theirs).max() < 1e-12


def test_when_a_demonstration_is_not_finite_expect_training_to_stop(few_demonstrations, statistics):
    broken = few_demonstrations.position.copy()
    broken[:] = np.nan
    data = dataclasses.replace(few_demonstrations, position=broken)
    with pytest.raises(RuntimeError, match='diverged before step'):
        run(data, statistics, steps=1)


def test_when_a_batch_is_larger_than_the_dataset_expect_an_error(few_demonstrations, statistics):
    batches = Batches(few_demonstrations, statistics, torch.device('cpu'))
    with pytest.raises(ValueError, match='record more'):
        next(batches.indices(1000, torch.Generator()))


def test_when_an_epoch_is_drawn_expect_every_image_once(few_demonstrations, statistics):
    batches = Batches(few_demonstrations, statistics, torch.device('cpu'))
    drawn = batches.indices(8, torch.Generator().manual_seed(0))
    epoch = torch.cat([next(drawn) for _ in range(3)])
    assert sorted(epoch.tolist()) == list(range(24))
