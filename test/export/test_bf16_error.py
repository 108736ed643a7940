# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How far 16 bits are off, against what LeRobot's own policy was off at bf16: recorded, on the
policy of the demonstration and observations that are made again here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.export.bf16_error import observations, relative_errors
from vla_deploy.backends.fused_policy import FusedPolicy
from vla_deploy.backends.parameters import ModuleParameters
from vla_deploy.backends.torch_cuda import TorchCudaBackend
from vla_deploy.backends.torch_ops import TorchOps
from vla_deploy.export.backbone import load_tokenizer
from vla_deploy.export.checkpoint import read_checkpoint
from vla_deploy.export.families import family_of
from vla_deploy.export.half import as_reference
from vla_deploy.export.parity import TorchRun
from vla_deploy.export.precisions import GREY_LEVEL, PICTURES, reference_error
from vla_deploy.export.torch_pipeline import ModelInputs, TorchPipeline
from vla_deploy.pipeline.backend import ModelInputs as BackendInputs

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / 'test' / 'goldens' / 'reach_bf16.json'
CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def checkpoint():
    return read_checkpoint(ROOT / 'policies' / 'reach')


@pytest.fixture(scope='module')
def pipeline(checkpoint):
    """The torch modules from raw observation to chunk."""
    family = family_of(checkpoint)
    model, _ = family.load(checkpoint)
    return TorchPipeline(
        model, family.contract(checkpoint), checkpoint.processors.statistics,
        load_tokenizer(checkpoint.tokenizer),
    )


@pytest.fixture(scope='module')
def of_lerobot(checkpoint, pipeline):
    """Return a function from what makes a chunk of inputs and noise to its relative error, on
    average, divided by LeRobot's. The standard error of either average is 4 percent."""
    errors = json.loads(RECORDED.read_text(encoding='ascii'))['relative_errors']
    cases = [
        (pipeline.inputs(case.observation), case.noise)
        for case in observations(checkpoint, len(errors))
    ]
    exact = [pipeline.chunk(*case) for case in cases]

    def ratio(chunk):
        own = relative_errors(zip((chunk(*case) for case in cases), exact, strict=True))
        return np.mean(own) / np.mean(errors)

    return ratio


def test_when_modules_are_rounded_like_the_reference_expect_its_own_error(pipeline, of_lerobot):
    def rounded(inputs, noise):
        with as_reference(pipeline.model, 'bf16'):
            return pipeline.chunk(inputs, noise)

    # 0.90 was measured, and 0.71 without the roundings of the residual stream
    assert 0.78 < of_lerobot(rounded) < 1.1


def test_when_served_by_torch_cuda_expect_an_error_at_most_1_25_times_the_reference_s_own(
    pipeline, of_lerobot
):
    model = pipeline.model
    source = ModuleParameters(model, CPU)
    policy = FusedPolicy(model.config, source, torch.bfloat16, TorchOps())
    backend = TorchCudaBackend(policy, pipeline.contract, unrolled=True, stream=None)

    def served(inputs, noise):
        given = BackendInputs(**{name: part.numpy() for name, part in vars(inputs).items()})
        return backend.whole(given, noise)

    assert of_lerobot(served) <= 1.25


@dataclass
class Counted:
    """Stands for the torch modules: keeps the images that it is given."""

    model: torch.nn.Module = field(default_factory=torch.nn.Identity)
    seen: list[torch.Tensor] = field(default_factory=list)

    def chunks(self, inputs, noises):
        self.seen.append(inputs.images)
        return noises


def test_when_the_reference_s_own_error_is_measured_expect_it_on_images_beside_the_fixture_s():
    images = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    inputs = ModelInputs(images, *(torch.zeros(1) for _ in range(4)))
    nothing = np.zeros((1, 5, 4), np.float32)
    run = TorchRun(inputs, {}, nothing, nothing, nothing)
    reference = Counted()
    assert reference_error(reference, [run], 'tf32', lambda _: None) == 0.0
    exact, rounded = reference.seen[::2], reference.seen[1::2]
    assert all(torch.equal(*pair) for pair in zip(exact, rounded, strict=True))
    assert torch.equal(exact[0], images)
    assert len({image.numpy().tobytes() for image in exact}) == PICTURES > 1
    assert all((image - images).abs().max() <= 1.001 * GREY_LEVEL for image in exact)
    assert all(image.abs().max() <= 1.0 for image in exact)
