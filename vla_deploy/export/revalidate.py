# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the parity ladder again on a finished bundle, with or without its checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.export.backbone import CONFIG, load_tokenizer
from vla_deploy.export.checkpoint import Checkpoint, read_checkpoint
from vla_deploy.export.families import family_of, with_steps
from vla_deploy.export.fixtures import Case
from vla_deploy.export.lerobot import direct_summary, try_lerobot
from vla_deploy.export.parity import GraphParity, TorchRun
from vla_deploy.export.precisions import (
    PRECISIONS,
    precision_failures,
    precision_figures,
    run_precision,
)
from vla_deploy.export.rungs import (
    FixtureParity,
    Progress,
    evidence_summary,
    failures,
    figures_mapping,
    run_graphs,
    run_pipeline,
    run_reference,
)
from vla_deploy.export.source import CheckpointError, need
from vla_deploy.export.torch_pipeline import TorchPipeline
from vla_deploy.export.variants import run_variants, variant_failures
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.bundle import FIXTURES, GRAPHS, NORMALIZER, threshold_name
from vla_deploy.pipeline.fixtures import Fixture, read_fixtures
from vla_deploy.pipeline.fixtures import compare as compare_served
from vla_deploy.pipeline.normalize import ActionDecoder, read_statistics
from vla_deploy.pipeline.observation import check_observation


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
    evidence = evidence_summary(contract.family)
    reason = 'no checkpoint was given'
    graphs: list[GraphParity] | list[None]
    if model is None:
        graphs = [None] * len(cases)
        chunks, actions = _recorded(recorded, contract, statistics)
    else:
        checkpoint = _matching(model, tokenizer, dims, contract)
        direct, reason = try_lerobot(checkpoint, contract, cases, progress)
        runs, actions = _run_checkpoint(checkpoint, contract, cases, threads, progress)
        graphs = [*run_graphs(bundle, GRAPHS['fp32'], runs, threads, progress)]
        chunks = [run.chunk for run in runs]
        if direct is not None:
            evidence |= direct_summary(direct, chunks)
            chunks, actions = [run.chunk for run in direct], [run.actions for run in direct]
    served = run_pipeline(policy, cases, chunks, actions, statistics, progress)
    parities = tuple(
        FixtureParity(case.observation.instruction, graph, one.chunk, one.actions)
        for case, graph, one in zip(cases, graphs, served, strict=True)
    )
    progress('rung 3, target: the self-test of the backend that serves')
    target = policy.self_test()
    missed = failures(parities, target, threshold)
    raws = [one.raw for one in served]
    variants = run_variants(policy.bundle, 'fp32', cases, raws, threads, progress)
    missed += variant_failures('fp32', variants, threshold)
    others: dict[str, Any] = {}
    for precision in PRECISIONS[1:]:
        if precision not in policy.receipt['parity']:
            continue
        stated = policy.receipt['parity'][precision].get('reference_max_abs')
        parity = run_precision(
            policy.bundle, precision, contract, cases, chunks, actions, statistics, stated,
            slice(None), threads, progress,
        )
        missed += precision_failures(parity, threshold)
        again = compare_served(
            list(zip(parity.raw, chunks, strict=True)),
            policy.receipt['thresholds'][threshold_name(precision)],
        )
        if not again.passed:
            missed.append(
                f'rung 3, {precision}: max_abs {again.max_abs!r} (at most {again.threshold!r})'
            )
        others[precision] = precision_figures(parity)
    summary = {
        'model_sha256': policy.model_sha256,
        'threshold': threshold,
        'passed': not missed,
        'failures': missed,
        'parity': {
            **figures_mapping(parities),
            'target': dataclasses.asdict(target),
            'variants': {name: dataclasses.asdict(found) for name, found in variants.items()},
            **others,
        },
        'reference': {**evidence, **({'why_not_direct': reason} if reason else {})},
    }
    return Validation(parities, tuple(missed), summary)


def _matching(
    model: Path, tokenizer: Path | None, dims: Path | None, contract: Contract
) -> Checkpoint:
    """Return the checkpoint with as many steps as the bundle; the rest must agree.

    The robot's names may come from a file that is not there any more, so they are left out.
    """
    checkpoint = read_checkpoint(model, contract.family, tokenizer, dims=dims)
    checkpoint = with_steps(_without_names(checkpoint), contract.denoise_steps)
    _require_same(checkpoint, contract)
    return checkpoint


def _run_checkpoint(
    checkpoint: Checkpoint,
    contract: Contract,
    cases: Sequence[Case],
    threads: int | None,
    progress: Progress,
) -> tuple[list[TorchRun], list[NDArray[np.float32]]]:
    """Run the checkpoint in torch; return its runs and robot-unit actions."""
    module, _ = family_of(checkpoint).load(checkpoint)
    reference = TorchPipeline(
        module, contract, checkpoint.processors.statistics, load_tokenizer(checkpoint.tokenizer)
    )
    runs = run_reference(reference, cases, threads, progress)
    return runs, [
        reference.actions(run.chunk, case.observation)
        for run, case in zip(runs, cases, strict=True)
    ]


def _without_names(checkpoint: Checkpoint) -> Checkpoint:
    """Return it without what the robot calls things: cameras are told apart by their keys, since
    two of these may end alike, or in what is no name, and only the robot's names tell better."""
    keys = need(checkpoint.config, 'input_features', dict, checkpoint.path / CONFIG)
    numbered = {key: f'camera{index}' for index, key in enumerate(keys)}
    processors = dataclasses.replace(checkpoint.processors, renamed=numbered)
    return dataclasses.replace(checkpoint, robot_io=None, processors=processors)


def _require_same(checkpoint: Checkpoint, contract: Contract) -> None:
    """Refuse a checkpoint of another contract; it has no names of the robot's."""
    own = family_of(checkpoint).contract(checkpoint)
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
    decode = ActionDecoder(contract.action, statistics)
    chunks = [fixture.chunk for fixture in fixtures]
    states = [check_observation(f.observation, contract).state for f in fixtures]
    return chunks, [decode(c, state) for c, state in zip(chunks, states, strict=True)]
