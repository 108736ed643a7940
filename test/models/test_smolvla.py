# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The SmolVLA modules against recorded tensors of the reference, and their own promises."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vla_deploy.core.contract import TimeEmbedding
from vla_deploy.export import smolvla
from vla_deploy.export.checkpoint import read_checkpoint
from vla_deploy.export.golden import golden_cases
from vla_deploy.models.flow import euler_times, time_embedding
from vla_deploy.models.smolvla import SmolVLA
from vla_deploy.models.vision import Connector, VisionConfig, VisionEmbeddings, position_ids
from vla_deploy.pipeline.sampler import time_embeddings

GOLDENS = Path(__file__).parents[1] / 'goldens'
SETS = ('smolvla_3cam', 'smolvla_2cam_empty')
CASES = [(name, index) for name in SETS for index in range(6)]
CHUNK_MAX_ABS = 2e-6


@functools.cache
def golden(name):
    """Return the module with the golden weights, its contract and its cases."""
    torch.set_num_threads(1)
    checkpoint = read_checkpoint(GOLDENS / name / 'checkpoint')
    model, _ = smolvla.load(checkpoint)
    contract = smolvla.contract(checkpoint)
    return model, contract, list(golden_cases(GOLDENS / name, contract))


def batched(inputs):
    """Return model inputs with a batch dimension, in the prefix's order."""
    return [getattr(inputs, field.name)[None] for field in dataclasses.fields(inputs)]


def first(name='smolvla_3cam', full=True):
    """Return the module, the batched inputs of its case 0 and that case."""
    model, contract, cases = golden(name)
    return model, batched(cases[0].model_inputs(contract, full)), cases[0]


def difference(actual, expected):
    """Return the largest absolute difference of a tensor and a recorded array."""
    return float(np.abs(actual.numpy() - expected).max())


@pytest.mark.parametrize(('name', 'index'), CASES)
@pytest.mark.parametrize('full', [False, True], ids=['as recorded', 'padded to static shapes'])
def test_when_fed_the_reference_tensors_expect_its_chunk(name, index, full):
    model, contract, cases = golden(name)
    case = cases[index]
    with torch.no_grad():
        prefix = model.prefix(*batched(case.model_inputs(contract, full)))
        chunk = model.sample(prefix, torch.from_numpy(case.noise)[None])[0]
    assert difference(chunk, case.recorded['chunk_model']) <= CHUNK_MAX_ABS


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
            assert difference(x[0], case.recorded['x_t'][index]) <= CHUNK_MAX_ABS


@pytest.mark.parametrize('name', SETS)
@pytest.mark.parametrize(('layer', 'which'), [(0, 'kv_first'), (-1, 'kv_last')])
def test_when_prefix_runs_expect_the_reference_keys_and_values(name, layer, which):
    model, inputs, case = first(name, full=False)
    with torch.no_grad():
        embedded, mask = model.embed_prefix(model.embed_images(inputs[0]), *inputs[1:])
        cache, _ = model.language_keys_values(embedded, mask)
    valid = case.recorded['prefix_pad_mask']
    assert np.array_equal(mask[0].numpy(), valid)
    for tensor, what in zip(cache[layer], 'kv', strict=True):
        expected = case.recorded[f'{which}/{what}'][:, valid]
        assert difference(tensor[0].transpose(0, 1)[:, torch.from_numpy(valid)], expected) <= 5e-6


def test_when_masked_inputs_change_expect_the_same_velocity():
    model, contract, cases = golden('smolvla_3cam')
    inputs = cases[5].model_inputs(contract)  # one camera masked, 39 of 48 tokens padded
    other = dataclasses.replace(
        inputs,
        images=torch.where(inputs.image_mask[:, None, None, None], inputs.images, 0.5),
        tokens=torch.where(inputs.token_mask, inputs.tokens, 77),
    )
    noise = torch.from_numpy(cases[5].noise)[None]
    with torch.no_grad():
        chunks = [model.sample(model.prefix(*batched(i)), noise) for i in (inputs, other)]
    assert not torch.equal(inputs.images, other.images)
    assert torch.equal(chunks[0], chunks[1])


def test_when_state_changes_expect_only_the_state_token_to_change():
    model, inputs, _ = first()
    with torch.no_grad():
        before = model.prefix(*inputs)
        after = model.prefix(*inputs[:-1], inputs[-1] + 1.0)
    others = before.mask[0, :-1]
    assert torch.equal(before.key[:, :, :-1][:, :, others], after.key[:, :, :-1][:, :, others])
    assert not torch.equal(before.key[:, :, -1], after.key[:, :, -1])


def test_when_a_later_action_changes_expect_earlier_velocities_unchanged():
    model, inputs, case = first()
    x = torch.from_numpy(case.noise)[None]
    changed = x.clone()
    changed[:, 6] += 1.0
    with torch.no_grad():
        prefix = model.prefix(*inputs)
        a, b = (
            model.velocity(prefix.key, prefix.value, prefix.mask, v, model.time_table[:1])
            for v in (x, changed)
        )
    assert torch.equal(a[:, :6], b[:, :6])
    assert float((a[:, 7:] - b[:, 7:]).abs().max()) > 1e-3


def test_when_batched_expect_each_row_as_if_alone():
    model, contract, cases = golden('smolvla_2cam_empty')
    rows = [batched(cases[i].model_inputs(contract)) for i in (0, 4)]
    noise = torch.stack([torch.from_numpy(cases[i].noise) for i in (0, 4)])
    with torch.no_grad():
        together = model.sample(model.prefix(*map(torch.cat, zip(*rows, strict=True))), noise)
        alone = [
            model.sample(model.prefix(*row), one[None])
            for row, one in zip(rows, noise, strict=True)
        ]
    assert float((together - torch.cat(alone)).abs().max()) <= 2e-6


def test_when_trained_expect_gradients_in_every_part_that_is_used():
    model, inputs, case = first()
    trained = SmolVLA(model.config)
    trained.load_state_dict(model.state_dict())
    prefix = trained.prefix(*inputs)
    x = torch.from_numpy(case.noise)[None]
    time = trained.embed_time(torch.tensor([0.3]))
    trained.velocity(prefix.key, prefix.value, prefix.mask, x, time).square().mean().backward()
    unused = ('text_model.norm.', f'text_model.layers.{model.config.num_vlm_layers - 1}.')
    for name, parameter in trained.named_parameters():
        if any(part in name for part in unused):
            continue
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize('side', [1, 2, 4, 8, 16, 32, 64])
def test_when_image_has_the_trained_size_expect_positions_in_order(side):
    assert torch.equal(position_ids(side, side, side), torch.arange(side * side))


def test_when_image_is_half_the_trained_size_expect_every_second_position():
    expected = (torch.arange(0, 8, 2)[:, None] * 8 + torch.arange(0, 8, 2)).reshape(-1)
    assert torch.equal(position_ids(4, 4, 8), expected)


@pytest.mark.parametrize('steps', [1, 3, 10, 50])
def test_when_times_are_embedded_expect_the_sampler_numbers(steps):
    embedded = time_embedding(euler_times(steps), 720, 4e-3, 4.0).numpy()
    assert np.array_equal(embedded, time_embeddings(TimeEmbedding(720, 4e-3, 4.0), steps))


def test_when_patches_are_embedded_expect_the_convolution_of_the_checkpoints_kernel():
    config = VisionConfig(16, 32, 1, 2, image_size=24, patch_size=8)
    embeddings = VisionEmbeddings(config, (16, 24)).double().requires_grad_(False)
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)).double()
    positions = embeddings.position_embedding(embeddings.position_ids)
    patches = embeddings.patch_embedding(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embeddings(images), patches + positions, rtol=0, atol=1e-12)


def test_when_patches_are_shuffled_expect_each_token_to_hold_its_block():
    connector = Connector(vision_size=3, text_size=12, scale=2, grid=(4, 4))
    with torch.no_grad():
        connector.modality_projection.proj.weight.copy_(torch.eye(12))
        patches = torch.arange(16 * 3.0).view(1, 16, 3)
        tokens = connector(patches)
    rows = patches.view(4, 4, 3)
    for token in range(4):
        i, j = divmod(token, 2)
        block = rows[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(-1)
        assert torch.equal(tokens[0, token], block)


@pytest.mark.parametrize(
    ('size', 'message'),
    [((64, 80), 'must be square'), ((60, 60), 'do not divide into blocks of 16')],
)
def test_when_image_size_does_not_fit_expect_an_error_that_says_so(size, message):
    config = golden('smolvla_3cam')[0].config
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, image_height=size[0], image_width=size[1])


def test_when_checkpoint_is_bfloat16_expect_float32_modules_and_the_dtype_reported(tmp_path):
    for part in ('checkpoint', 'backbone'):
        shutil.copytree(GOLDENS / 'smolvla_3cam' / part, tmp_path / part)
    path = tmp_path / 'checkpoint' / 'model.safetensors'
    save_file({name: value.bfloat16() for name, value in load_file(path).items()}, path)
    model, dtypes = smolvla.load(read_checkpoint(tmp_path / 'checkpoint'))
    assert dtypes == ('bfloat16',)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    weight = golden('smolvla_3cam')[0].state_proj.weight
    assert torch.equal(model.state_proj.weight, weight.bfloat16().float())
