# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The pi0 and pi0.5 modules against recorded tensors of the reference, and their own promises."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from vla_deploy.export import pi
from vla_deploy.export.golden import golden_cases, golden_checkpoint
from vla_deploy.models.gemma import AdaptiveNorm, GemmaNorm

GOLDENS = Path(__file__).parents[1] / 'goldens'
SETS = ('pi0', 'pi05')
CASES = [(name, index) for name in SETS for index in range(6)]


@functools.cache
def golden(name):
    """Return the module with the golden weights, its contract and its cases."""
    torch.set_num_threads(1)
    checkpoint = golden_checkpoint(GOLDENS / name)
    model, _ = pi.load(checkpoint)
    contract = pi.contract(checkpoint)
    return model, contract, list(golden_cases(GOLDENS / name, contract))


def batched(inputs):
    """Return model inputs with a batch dimension, in the prefix's order."""
    return [getattr(inputs, field.name)[None] for field in dataclasses.fields(inputs)]


def first(name):
    """Return the module, the batched inputs of its case 0 and that case."""
    model, contract, cases = golden(name)
    return model, batched(cases[0].model_inputs(contract)), cases[0]


def difference(actual, expected):
    """Return the largest absolute difference of a tensor and a recorded array."""
    return float(np.abs(actual.numpy() - expected).max())


@pytest.mark.parametrize(('name', 'index'), CASES)
def test_when_fed_the_reference_tensors_expect_its_chunk(name, index):
    model, contract, cases = golden(name)
    with torch.no_grad():
        prefix = model.prefix(*batched(cases[index].model_inputs(contract)))
        chunk = model.sample(prefix, torch.from_numpy(cases[index].noise)[None])[0]
    assert difference(chunk, cases[index].recorded['chunk_model']) <= 2e-6


@pytest.mark.parametrize('name', SETS)
def test_when_stepped_expect_the_reference_x_and_velocity_at_every_step(name):
    model, inputs, case = first(name)
    x = torch.from_numpy(case.noise)[None]
    with torch.no_grad():
        prefix = model.prefix(*inputs)
        for index, time in enumerate(model.time_table):
            x, velocity = model.step(
                prefix.key, prefix.value, prefix.mask, x, time[None], -1 / len(model.time_table)
            )
            assert difference(velocity[0], case.recorded['v_t'][index]) <= 5e-6
            assert difference(x[0], case.recorded['x_t'][index]) <= 2e-6


@pytest.mark.parametrize('name', SETS)
@pytest.mark.parametrize(('layer', 'which'), [(0, 'kv_first'), (-1, 'kv_last')])
def test_when_prefix_runs_expect_the_reference_keys_and_values(name, layer, which):
    model, inputs, case = first(name)
    with torch.no_grad():
        prefix = model.prefix(*inputs)
    valid = case.recorded['prefix_pad_mask']
    assert np.array_equal(prefix.mask[0, : len(valid)].numpy(), valid)
    assert prefix.mask.shape[1] == len(valid) + (name == 'pi0')
    for tensor, what in ((prefix.key, 'k'), (prefix.value, 'v')):
        ours = tensor[layer, 0, : len(valid)].transpose(0, 1)[:, torch.from_numpy(valid)]
        assert difference(ours, case.recorded[f'{which}/{what}'][:, valid]) <= 5e-6


@pytest.mark.parametrize('name', SETS)
def test_when_masked_inputs_change_expect_the_same_chunk(name):
    model, contract, cases = golden(name)
    inputs = cases[4].model_inputs(contract)  # one camera missing, most tokens padded
    other = dataclasses.replace(
        inputs,
        images=torch.where(inputs.image_mask[:, None, None, None], inputs.images, 0.5),
        tokens=torch.where(inputs.token_mask, inputs.tokens, 77),
    )
    noise = torch.from_numpy(cases[4].noise)[None]
    with torch.no_grad():
        chunks = [model.sample(model.prefix(*batched(i)), noise) for i in (inputs, other)]
    assert not torch.equal(inputs.images, other.images)
    assert torch.equal(chunks[0], chunks[1])


def test_when_state_changes_expect_only_the_state_token_to_change():
    model, inputs, _ = first('pi0')
    with torch.no_grad():
        before = model.prefix(*inputs)
        after = model.prefix(*inputs[:-1], inputs[-1] + 1.0)
    assert torch.equal(before.key[:, :, :-1], after.key[:, :, :-1])
    assert torch.equal(before.value[:, :, :-1], after.value[:, :, :-1])
    assert not torch.equal(before.value[:, :, -1], after.value[:, :, -1])


def test_when_state_is_in_the_text_expect_the_state_input_unread():
    model, inputs, _ = first('pi05')
    with torch.no_grad():
        before = model.prefix(*inputs)
        after = model.prefix(*inputs[:-1], inputs[-1] + 1.0)
    assert torch.equal(before.key, after.key)
    assert torch.equal(before.value, after.value)


@pytest.mark.parametrize('name', SETS)
def test_when_a_later_action_changes_expect_earlier_velocities_to_change(name):
    model, inputs, case = first(name)
    x = torch.from_numpy(case.noise)[None]
    changed = x.clone()
    changed[:, 6] += 1.0
    with torch.no_grad():
        prefix = model.prefix(*inputs)
        a, b = (
            model.velocity(prefix.key, prefix.value, prefix.mask, v, model.time_table[:1])
            for v in (x, changed)
        )
    assert float((a[:, :6] - b[:, :6]).abs().max()) > 1e-4


def test_when_norm_has_zero_weight_expect_unit_rms():
    hidden = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    normed, gate = GemmaNorm(8, 1e-6)(hidden, None)
    assert gate is None
    assert torch.allclose(normed.pow(2).mean(-1), torch.ones(2, 3), atol=1e-4)


def test_when_conditioned_norm_gets_no_condition_expect_an_error():
    with pytest.raises(ValueError, match='needs a condition'):
        AdaptiveNorm(8, 1e-6)(torch.zeros(1, 1, 8), None)


def test_when_expert_and_language_model_do_not_fit_expect_the_size_named():
    config = golden('pi0')[0].config
    with pytest.raises(ValueError, match='num_layers is 2 in the expert, 3 in the language'):
        dataclasses.replace(config, expert=dataclasses.replace(config.expert, num_layers=2))
