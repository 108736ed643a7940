# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Export: a checkpoint becomes a verified bundle, or nothing."""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from vla_deploy.core.contract import Contract
from vla_deploy.export.backbone import load_tokenizer
from vla_deploy.export.checkpoint import Checkpoint, read_checkpoint
from vla_deploy.export.compose import compose_variants
from vla_deploy.export.families import family_of, with_steps
from vla_deploy.export.fixtures import Case, make_cases
from vla_deploy.export.fuse import write_fused_graphs
from vla_deploy.export.graph import export_graphs
from vla_deploy.export.lerobot import direct_summary, is_installed, try_lerobot
from vla_deploy.export.parameters import write_parameters
from vla_deploy.export.parity import (
    DEFAULT_THRESHOLD,
    MIN_COSINE,
    STRICT_THRESHOLD,
    GateError,
    TorchRun,
)
from vla_deploy.export.precisions import (
    precision_failures,
    reference_error,
    run_precision,
    write_graphs,
)
from vla_deploy.export.receipt import (
    checkpoint_mapping,
    make_receipt,
    report,
    with_precision,
    with_tf32,
)
from vla_deploy.export.rungs import (
    RECORDED,
    FixtureParity,
    Progress,
    evidence_summary,
    failures,
    fused_failures,
    run_graphs,
    run_pipeline,
    run_reference,
)
from vla_deploy.export.source import CheckpointError
from vla_deploy.export.staging import staged_folder
from vla_deploy.export.still import still_actions, still_states
from vla_deploy.export.torch_pipeline import TorchPipeline
from vla_deploy.export.variants import run_variants, variant_failures, variant_notes
from vla_deploy.files import write_yaml
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.backend import require_threads
from vla_deploy.pipeline.bundle import (
    CONTRACT,
    FIXTURES,
    GRAPHS,
    NORMALIZER,
    PREFIX_GRAPH,
    RECEIPT,
    REPORT,
    STEP_GRAPH,
    TF32,
    TOKENIZER,
    WEIGHTS,
    graphs_of,
    open_bundle,
    seal_receipt,
    sha256_of_file,
)
from vla_deploy.pipeline.fixtures import Fixture, write_fixtures
from vla_deploy.pipeline.fixtures import compare as compare_served

# Variants, and the graphs for GPUs on a CPU, are made of the same nodes, so that one case shows a
# slip; a strict gate wants them all.
_ONE_CASE = slice(-1, None)


@dataclass(frozen=True)
class ExportOptions:
    """What export was asked for; None stands for what the checkpoint says."""

    model: Path
    output: Path
    family: str | None = None
    tokenizer: Path | None = None
    robot_io: Path | None = None
    dims: Path | None = None
    steps: int | None = None
    strict: bool = False
    precision: str = 'fp32'


@dataclass(frozen=True)
class Exported:
    """The finished bundle."""

    path: Path
    model_sha256: str
    receipt: Mapping[str, Any]
    parities: tuple[FixtureParity, ...]
    warnings: tuple[str, ...]


def export_bundle(options: ExportOptions, threads: int | None, progress: Progress) -> Exported:
    """Write the bundle to `options.output`, or raise and leave nothing there.

    Raises CheckpointError for a checkpoint that cannot be exported, PolicyError for threads below
    1, GateError where a rung fails, OSError where files cannot be written.
    """
    require_threads(threads)
    progress(f'reading {options.model}')
    checkpoint = _checkpoint(options)
    family = family_of(checkpoint)
    contract = family.contract(checkpoint)
    evidence = evidence_summary(checkpoint.family)
    if options.strict and evidence['changed_sources'] and not is_installed():
        raise GateError([f'rung 2: {_changed(evidence)}'])
    still = still_states(contract, checkpoint.processors.statistics)
    if options.strict and still:
        raise CheckpointError(f'{options.model}: refused by --strict: {"; ".join(still)}')
    threshold = STRICT_THRESHOLD if options.strict else DEFAULT_THRESHOLD
    with staged_folder(options.output) as folder:
        cases = make_cases(contract, checkpoint.processors.statistics)
        direct, reason = try_lerobot(checkpoint, contract, cases, progress)
        if direct is None:
            evidence |= {'why_not_direct': reason}
            if options.strict and evidence['changed_sources']:
                raise GateError([f'rung 2: {_changed(evidence)}'])
        traced = _trace(folder, checkpoint, contract, cases, options.precision, threads, progress)
        if direct is not None:
            traced = dataclasses.replace(
                traced,
                chunks=[run.chunk for run in direct],
                actions=[run.actions for run in direct],
            )
            evidence |= direct_summary(direct, [run.chunk for run in traced.runs])
        # The torch modules are gone from here on, and the runtime may load their weights. The
        # exporter leaves cycles that hold them.
        gc.collect()
        proven = _prove(
            folder, checkpoint, contract, traced, evidence, threshold, options, threads, progress
        )
        return dataclasses.replace(proven, path=options.output)


@dataclass(frozen=True, eq=False)
class _Traced:
    """What is left of the torch modules once they are gone: their runs; chunks and robot-unit
    actions, which are LeRobot's own where it ran; `reference_error` at the precision that is asked
    for beside float32."""

    dtypes: tuple[str, ...]
    cases: tuple[Case, ...]
    runs: list[TorchRun]
    chunks: list[NDArray[np.float32]]
    actions: list[NDArray[np.float32]]
    reference_error: float | None


def _trace(
    folder: Path,
    checkpoint: Checkpoint,
    contract: Contract,
    cases: tuple[Case, ...],
    precision: str,
    threads: int | None,
    progress: Progress,
) -> _Traced:
    """Write graphs, weights and data, and run the torch modules on every fixture."""
    model, dtypes = family_of(checkpoint).load(checkpoint)
    count = sum(parameter.numel() for parameter in model.parameters())
    progress(f'exporting two graphs of {count / 1e6:.1f} M parameters')
    export_graphs(model, folder / PREFIX_GRAPH, folder / STEP_GRAPH, folder / WEIGHTS)
    write_parameters(folder, checkpoint.family, model)
    _write_data(folder, checkpoint, contract)
    statistics = checkpoint.processors.statistics
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    reference = TorchPipeline(model, contract, statistics, tokenizer)
    runs = run_reference(reference, cases, threads, progress)
    actions = [
        reference.actions(run.chunk, case.observation)
        for run, case in zip(runs, cases, strict=True)
    ]
    error = reference_error(reference, runs, precision, progress)
    return _Traced(dtypes, cases, runs, [run.chunk for run in runs], actions, error)


def _checkpoint(options: ExportOptions) -> Checkpoint:
    checkpoint = read_checkpoint(
        options.model, options.family, options.tokenizer, options.robot_io, options.dims
    )
    if options.steps is None:
        return checkpoint
    if options.steps < 1:
        raise CheckpointError(f'--steps is {options.steps}, but must be at least 1')
    return with_steps(checkpoint, options.steps)


def _write_data(folder: Path, checkpoint: Checkpoint, contract: Contract) -> None:
    write_yaml(folder / CONTRACT, contract.to_mapping())
    (folder / NORMALIZER).write_bytes(save(dict(checkpoint.processors.statistics)))
    (folder / TOKENIZER).write_bytes(checkpoint.tokenizer.read_bytes())


def _prove(
    folder: Path,
    checkpoint: Checkpoint,
    contract: Contract,
    traced: _Traced,
    evidence: Mapping[str, Any],
    threshold: float,
    options: ExportOptions,
    threads: int | None,
    progress: Progress,
) -> Exported:
    """Make the fixtures, climb the other rungs, and seal the receipt with what all gave."""
    statistics = checkpoint.processors.statistics
    thresholds = _thresholds(threshold)
    compose_variants(folder, GRAPHS['fp32'], contract)
    graphs = run_graphs(folder, GRAPHS['fp32'], traced.runs, threads, progress)
    write_fused_graphs(folder, contract)
    alike = slice(None) if options.strict else _ONE_CASE
    runs = traced.runs[alike]
    on_gpu = run_graphs(folder, graphs_of('fp32', 'cuda'), runs, threads, progress)
    cases, chunks = traced.cases, traced.chunks
    write_fixtures(
        folder / FIXTURES,
        [Fixture(c.observation, c.noise, chunk) for c, chunk in zip(cases, chunks, strict=True)],
    )
    # The pipeline opens sealed bundles only; this seal gives way to one with the figures.
    (folder / REPORT).write_text('not verified yet\n', encoding='utf-8')
    sealed = _seal(folder, {'thresholds': thresholds})
    policy = Policy.load(folder, threads=threads)
    served = run_pipeline(policy, cases, chunks, traced.actions, statistics, progress)
    parities = tuple(
        FixtureParity(case.observation.instruction, graph, one.chunk, one.actions)
        for case, graph, one in zip(cases, graphs, served, strict=True)
    )
    target = compare_served(
        [(one.raw, chunk) for one, chunk in zip(served, chunks, strict=True)], threshold
    )
    missed = failures(parities, target, threshold) + fused_failures(on_gpu, threshold)
    if missed:
        raise GateError(missed)
    bundle, raws = policy.bundle, [one.raw for one in served]
    del policy  # its weights would be in memory beside those of the next
    fp32 = run_variants(bundle, 'fp32', cases[alike], raws[alike], threads, progress)
    if missed := variant_failures('fp32', fp32, threshold):
        raise GateError(missed)
    receipt = make_receipt(
        checkpoint_mapping(checkpoint, traced.dtypes), checkpoint.family, parities, evidence,
        thresholds, target, fp32, on_gpu,
    )
    notes = variant_notes('fp32', fp32)
    if options.precision == TF32 and traced.reference_error is not None:
        receipt = with_tf32(receipt, traced.reference_error)
    elif options.precision != 'fp32':
        if options.precision in GRAPHS:
            progress(f'writing the graphs of {options.precision}')
            write_graphs(folder, contract, options.precision)
        sealed = _seal(folder, receipt, sealed['files'])
        parity = run_precision(
            open_bundle(folder), options.precision, contract, cases, chunks, traced.actions,
            statistics, traced.reference_error, alike, threads, progress,
        )
        if missed := precision_failures(parity, threshold):
            raise GateError(missed)
        receipt = with_precision(receipt, parity)
        notes += variant_notes(options.precision, parity.variants)
    (folder / REPORT).write_text(report(receipt, parities), encoding='utf-8')
    sealed = _seal(folder, receipt, sealed['files'])
    return Exported(
        folder,
        sealed['self_sha256'],
        sealed,
        parities,
        (*_warnings(checkpoint, contract, traced.dtypes, evidence), *notes),
    )


def _thresholds(threshold: float) -> dict[str, float]:
    return {
        'graph_max_abs': threshold,
        'pipeline_scaled_max_abs': threshold,
        'target_max_abs': threshold,
        'min_cosine': MIN_COSINE,
    }


def _seal(
    folder: Path, receipt: Mapping[str, Any], known: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Write receipt.json over all other files in the folder and return what it holds.

    `known`: digests from an earlier seal; of these files only the report has changed since.
    """
    names = {path.name for path in folder.iterdir()} - {RECEIPT}
    kept = {name: digest for name, digest in (known or {}).items() if name != REPORT}
    files = {name: kept.get(name) or sha256_of_file(folder / name) for name in names}
    data = seal_receipt({**receipt, 'files': files})
    (folder / RECEIPT).write_bytes(data)
    sealed: dict[str, Any] = json.loads(data)
    return sealed


def _warnings(
    checkpoint: Checkpoint,
    contract: Contract,
    dtypes: tuple[str, ...],
    evidence: Mapping[str, Any],
) -> tuple[str, ...]:
    """Return what a user should know although the gate passed."""
    statistics = checkpoint.processors.statistics
    lines = still_states(contract, statistics) + still_actions(contract, statistics)
    lines += family_of(checkpoint).notes(checkpoint)
    if dtypes != ('float32',):
        lines.append(f'weights are {", ".join(dtypes)}; parity holds for them cast to float32')
    if evidence['kind'] == RECORDED and evidence['changed_sources']:
        lines.append(_changed(evidence))
    return tuple(lines)


def _changed(evidence: Mapping[str, Any]) -> str:
    files = ', '.join(evidence['changed_sources'])
    return f'the recorded comparison with the reference is not for these sources: {files}'
