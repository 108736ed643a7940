# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The policies that a rollout can drive: the torch module in float32, or what is served."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from reach_checkpoint import CAMERA  # noqa: E402

from vla_deploy.pipeline import Guidance, Observation, Policy  # noqa: E402
from vla_deploy.pipeline.sampler import NO_HASTE, Haste  # noqa: E402

Images = NDArray[np.uint8]
Actions = tuple[NDArray[np.float64], NDArray[np.float32]]
Infer = Callable[[Images, NDArray[np.float64], str, int, Guidance | None], Actions]
"""Image [256, 256, 3], positions [7] rad, sentence, noise seed, guidance -> positions [16, 7] rad
and the same in model space [16, padded]."""


def torch_policy(checkpoint: Path) -> Infer:
    """Return the torch policy of a checkpoint folder, with the exporter's torch processors."""
    from vla_deploy.export import smolvla
    from vla_deploy.export.backbone import load_tokenizer
    from vla_deploy.export.checkpoint import read_checkpoint
    from vla_deploy.export.torch_pipeline import TorchPipeline

    read = read_checkpoint(checkpoint)
    model, _ = smolvla.load(read)
    contract = smolvla.contract(read)
    pipeline = TorchPipeline(
        model, contract, read.processors.statistics, load_tokenizer(read.tokenizer)
    )
    shape = (contract.chunk_steps, contract.action.padded_dim)

    def infer(
        image: Images,
        position: NDArray[np.float64],
        sentence: str,
        seed: int,
        guidance: Guidance | None,
    ) -> Actions:
        if guidance is not None:
            raise ValueError('the torch policy is not guided: give a bundle')
        noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        observation = Observation({CAMERA: image}, position, sentence)
        chunk = pipeline.chunk(pipeline.inputs(observation), noise)
        actions = pipeline.actions(chunk, observation).astype(np.float64)
        return actions, np.asarray(chunk, np.float32)

    return infer


def bundle_policy(bundle: Path) -> Infer:
    """Return the exported policy as it is served."""
    return served_policy(Policy.load(str(bundle), threads=1))


def served_policy(policy: Policy, haste: Haste = NO_HASTE) -> Infer:
    """Return a policy that is served already."""

    def infer(
        image: Images,
        position: NDArray[np.float64],
        sentence: str,
        seed: int,
        guidance: Guidance | None,
    ) -> Actions:
        observation = Observation({CAMERA: image}, position, sentence)
        chunk = policy.infer(observation, noise_seed=seed, guidance=guidance, haste=haste)
        return chunk.actions, chunk.raw

    return infer
