# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the parity ladder again on a finished bundle, with or without its checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.export.backbone import load_tokenizer
from vla_deploy.export.checkpoint import Checkpoint, read_checkpoint
from vla_deploy.export.families import family_of, with_steps
from vla_deploy.export.fixtures import Case
from vla_deploy.export.parity import GraphParity
from vla_deploy.export.quantize import PRECISION, int8_failures, run_int8
from vla_deploy.export.receipt import int8_figures
from vla_deploy.export.rungs import (
    FixtureParity,
    Progress,
    evidence_summary,
    failures,
    figures_mapping,
    run_graphs,
    run_pipeline,
)
from vla_deploy.export.source import CheckpointError
from vla_deploy.export.torch_pipeline import TorchPipeline
from vla_deploy.export.variants import run_variants, variant_failures
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.bundle import FIXTURES, GRAPHS, NORMALIZER
from vla_deploy.pipeline.fixtures import Fixture, read_fixtures
from vla_deploy.pipeline.normalize import VectorNormalizer, read_statistics


@dataclass(frozen=True)
class Validation:
    """What the rungs gave; `failures` is empty where all passed."""

    parities: tuple[FixtureParity, ...]
    failures: tuple[str, ...]
    summary: Mapping[str, Any]


def validate_bundle(
    bundle: Path,
    model: Path | None,
    tokenizer: Path | None,
    dims: Path | None,
    threshold: float,
    threads: int | None,
    progress: Progress,
) -> Validation:
    """Verify a bundle and run its rungs.

    With `model`, the checkpoint that it was made from, rungs 1 and 2 compare with the torch
    modules; without it rung 1 is not run, and rung 2 compares with the recorded fixtures. Raises
    BundleError, CheckpointError, GateError.
    """
    progress(f'verifying {bundle}')
    policy = Policy.load(bundle, threads=threads)
    contract = policy.contract
    recorded = read_fixtures(bundle / FIXTURES, contract)
    cases = [Case(fixture.observation, fixture.noise) for fixture in recorded]
    statistics = read_statistics(bundle / NORMALIZER)
    graphs: list[GraphParity] | list[None]
    if model is None:
        graphs = [None] * len(cases)
        chunks, actions = _recorded(recorded, contract, statistics)
    else:
        reference = _reference(model, tokenizer, dims, contract)
        graphs, chunks = run_graphs(bundle, reference, cases, threads, progress)
        actions = [reference.actions(chunk) for chunk in chunks]
    served = run_pipeline(policy, cases, chunks, actions, statistics, progress)
    parities = tuple(
        FixtureParity(case.observation.instruction, graph, one.chunk, one.actions)
        for case, graph, one in zip(cases, graphs, served, strict=True)
    )
    progress('rung 3, target: the self-test of the backend that serves')
    target = policy.self_test()
    missed = failures(parities, target, threshold)
    raws = [one.raw for one in served]
    variants = run_variants(bundle, 'fp32', cases, raws, threads, progress)
    missed += variant_failures('fp32', variants, threshold)
    int8: dict[str, Any] = {}
    if (bundle / GRAPHS[PRECISION].prefix).exists():
        parity = run_int8(
            bundle, contract, cases, chunks, actions, statistics, threads, progress
        )
        found = run_variants(bundle, PRECISION, cases, parity.raw, threads, progress)
        missed += int8_failures(parity) + variant_failures(PRECISION, found, threshold)
        served_int8 = Policy.load(bundle, precision=PRECISION, threads=threads).self_test()
        if not served_int8.passed:
            missed.append(
                f'rung 3, int8: max_abs {served_int8.max_abs!r} (at most '
                f'{served_int8.threshold!r})'
            )
        int8 = int8_figures(parity, found)
    summary = {
        'model_sha256': policy.model_sha256,
        'threshold': threshold,
        'passed': not missed,
        'failures': missed,
        'parity': {
            **figures_mapping(parities),
            'target': dataclasses.asdict(target),
            'variants': {name: dataclasses.asdict(found) for name, found in variants.items()},
            **({'int8': int8} if int8 else {}),
        },
        'reference': evidence_summary(contract.family),
    }
    return Validation(parities, tuple(missed), summary)


def _reference(
    model: Path, tokenizer: Path | None, dims: Path | None, contract: Contract
) -> TorchPipeline:
    """Return the checkpoint in torch, with as many steps as the bundle; the rest must agree."""
    checkpoint = read_checkpoint(model, contract.family, tokenizer, dims=dims)
    checkpoint = with_steps(checkpoint, contract.denoise_steps)
    _require_same(checkpoint, contract)
    module, _ = family_of(checkpoint).load(checkpoint)
    return TorchPipeline(
        module, contract, checkpoint.processors.statistics, load_tokenizer(checkpoint.tokenizer)
    )


def _require_same(checkpoint: Checkpoint, contract: Contract) -> None:
    """Refuse a checkpoint of another contract; the robot's names may come from elsewhere."""
    own = family_of(checkpoint).contract(dataclasses.replace(checkpoint, robot_io=None))
    robot = ('joints', 'units', 'control_mode', 'first_sample_offset_steps')
    for part in dataclasses.fields(Contract):
        if part.name in ('period_s', 'cameras'):
            continue
        theirs, ours = getattr(contract, part.name), getattr(own, part.name)
        if part.name in ('state', 'action'):
            names = [f.name for f in dataclasses.fields(ours) if f.name in robot]
            theirs = dataclasses.replace(theirs, **{n: getattr(ours, n) for n in names})
        if theirs != ours:
            raise CheckpointError(
                f'{checkpoint.path}: is not what the bundle was made from: {part.name} is {ours}, '
                f'in the bundle {theirs}'
            )
    if [c.key for c in own.cameras] != [c.key for c in contract.cameras]:
        raise CheckpointError(
            f'{checkpoint.path}: is not what the bundle was made from: its cameras differ'
        )


def _recorded(
    fixtures: list[Fixture], contract: Contract, statistics: Mapping[str, NDArray[np.float32]]
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    normalizer = VectorNormalizer('action', contract.action, statistics)
    chunks = [fixture.chunk for fixture in fixtures]
    return chunks, [normalizer.unnormalize(c[:, : contract.action.dim]) for c in chunks]
