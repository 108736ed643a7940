# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Precisions beside float32 in a bundle: what they are held to, and how that is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.export.fixtures import SEED, Case
from vla_deploy.export.half import REFERENCES, as_reference, write_half_graphs
from vla_deploy.export.parity import (
    Figure,
    TorchRun,
    action_scale,
    compare,
    compare_actions,
    worst,
)
from vla_deploy.export.quantize import quantize_graphs
from vla_deploy.export.rungs import Progress
from vla_deploy.export.torch_pipeline import ModelInputs, TorchPipeline
from vla_deploy.export.variants import VariantParity, run_variants, variant_failures
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.backend import BackendOptions
from vla_deploy.pipeline.bundle import FP8, GRAPHS, TF32, Bundle, threshold_name

INT8 = 'int8'
PRECISIONS = (*GRAPHS, FP8)
SERVED_BY = {FP8: 'torch_cuda'}  # otherwise by ONNX Runtime
# 8 bits against float32: a coarser result is another policy, not a faster one. The reference at fp8
# is no measure of that, as it would be as coarse itself.
IN_8_BITS = (INT8, FP8)
MIN_COSINE = 0.999
MAX_ACTION_ERROR = 0.05  # of the size of a dimension in robot units
# What serves may be so much worse than the reference at bf16, fp16, tf32 and fp8, and at int8 so
# much worse than on the exporting machine.
MARGIN = 1.25
# Of images, and of noise for each, of a fixture, where the reference's own error is measured.
PICTURES, NOISES = 3, 8
GREY_LEVEL = 2 / 255  # of images in [-1, 1]


@dataclass(frozen=True, eq=False)
class PrecisionParity:
    """A precision against the float32 reference over all fixtures.

    chunk: model space. actions: robot units divided by the size of each dimension.
    action_error: the largest error of each dimension, in its robot unit. raw: the chunks.
    reference_error: how far the reference itself is off at bf16, fp16 or fp8, model space; None
    at int8, which it does not know. variants: the other variants against split, where they are
    other graphs.
    """

    precision: str
    chunk: Figure
    actions: Figure
    action_error: tuple[float, ...]
    raw: tuple[NDArray[np.float32], ...]
    reference_error: float | None
    variants: Mapping[str, VariantParity]


def write_graphs(folder: Path, contract: Contract, precision: str) -> None:
    """Write the graphs and weights of a precision beside the float32 ones."""
    if precision == INT8:
        quantize_graphs(folder, contract)
    else:
        write_half_graphs(folder, contract, precision)


def reference_error(
    reference: TorchPipeline, runs: Sequence[TorchRun], precision: str, progress: Progress
) -> float | None:
    """Return how far the torch modules are off at a precision: the largest error of any element
    over all fixtures with several draws of noise and of images each, model space.

    One draw says little: the largest of few errors varies by half from one to the next. Most of it
    comes of the images, which are therefore drawn as well, within a grey level of the fixture's:
    that is another sum of roundings, at much the same place. Raises GateError where a number is not
    finite: the policy cannot be run at that precision.
    """
    if precision not in REFERENCES:
        return None
    errors = []
    for index, run in enumerate(runs):
        generator = np.random.Generator(np.random.Philox(SEED + index))
        for picture in range(PICTURES):
            progress(
                f'torch modules, {precision}: fixture {index + 1} of {len(runs)}, '
                f'{picture + 1} of {PICTURES}'
            )
            noises = generator.standard_normal((NOISES, *run.x[0].shape), dtype=np.float32)
            inputs = run.inputs if picture == 0 else _drawn(run.inputs, generator)
            if picture == 0:
                noises[0] = run.x[0]
            exact = reference.chunks(inputs, noises)
            with as_reference(reference.model, precision):
                rounded = reference.chunks(inputs, noises)
            errors.append(compare(rounded, exact, f'{precision}, torch chunks').max_abs)
    return max(errors)


def _drawn(inputs: ModelInputs, generator: np.random.Generator) -> ModelInputs:
    """Return the same but for images that are off by a grey level at most."""
    by = generator.uniform(-GREY_LEVEL, GREY_LEVEL, inputs.images.shape).astype(np.float32)
    return replace(inputs, images=(inputs.images + torch.from_numpy(by)).clamp(-1.0, 1.0))


def run_precision(
    bundle: Bundle,
    precision: str,
    contract: Contract,
    cases: Sequence[Case],
    chunks: Sequence[NDArray[np.float32]],
    actions: Sequence[NDArray[np.float32]],
    statistics: Mapping[str, NDArray[np.float32]],
    error: float | None,
    alike: slice,
    threads: int | None,
    progress: Progress,
) -> PrecisionParity:
    """Serve every case at a precision from a bundle and compare with what is expected.

    `alike`: the cases on which the variants are compared. `chunks` float32 [steps,padded_dim] and
    `actions` float32 [steps,dim] of the float32 reference, `error` as from `reference_error`.
    Raises GateError where a number is not finite.
    """
    options = BackendOptions(precision=precision, threads=threads)
    policy = Policy.serve(bundle, SERVED_BY.get(precision, 'onnx_runtime'), options)
    scale = action_scale(contract, statistics)
    raw, in_model, in_robot = [], [], []
    largest = np.zeros(contract.action.dim)
    for index, case in enumerate(cases):
        progress(f'rung 3, {precision}: fixture {index + 1} of {len(cases)}')
        served = policy.infer(case.observation, noise=case.noise)
        raw.append(served.raw)
        in_model.append(compare(served.raw, chunks[index], f'{precision} chunk'))
        in_robot.append(compare_actions(served.actions, actions[index], scale))
        largest = np.maximum(largest, np.abs(served.actions - actions[index]).max(axis=0))
    del policy
    return PrecisionParity(
        precision,
        worst(in_model),
        worst(in_robot),
        tuple(largest.tolist()),
        tuple(raw),
        error,
        run_variants(bundle, precision, cases[alike], raw[alike], threads, progress)
        if precision in GRAPHS
        else {},
    )


def precision_failures(parity: PrecisionParity, threshold: float) -> list[str]:
    """Return one line for each figure that misses the gate; `threshold` for the variants."""
    lines, name = [], parity.precision
    chunk, actions = parity.chunk, parity.actions
    own = parity.reference_error
    if own is not None and not chunk.max_abs <= MARGIN * own:
        lines.append(
            f'{name}, chunk: max_abs {chunk.max_abs!r}, more than {MARGIN} times the '
            f"reference's own error {own!r}"
        )
    if name in IN_8_BITS:
        if not chunk.cosine >= MIN_COSINE:
            lines.append(f'{name}, chunk: cosine {chunk.cosine!r} (at least {MIN_COSINE!r})')
        if not actions.max_abs <= MAX_ACTION_ERROR:
            lines.append(
                f'{name}, actions: max_abs {actions.max_abs!r} of the size of a dimension '
                f'(at most {MAX_ACTION_ERROR!r})'
            )
    return lines + variant_failures(name, parity.variants, threshold)


def precision_thresholds(parity: PrecisionParity) -> dict[str, float]:
    """Return what the receipt holds the serving machine to."""
    name = threshold_name(parity.precision)
    error = parity.chunk.max_abs if parity.reference_error is None else parity.reference_error
    return {name: MARGIN * error, **_floors(parity)}


def _floors(parity: PrecisionParity) -> dict[str, float]:
    """Return what 8 bits are held to beside that, where the policy was exported."""
    if parity.precision not in IN_8_BITS:
        return {}
    return {
        f'{parity.precision}_min_cosine': MIN_COSINE,
        f'{parity.precision}_actions_scaled_max_abs': MAX_ACTION_ERROR,
    }


def tf32_thresholds(error: float) -> dict[str, float]:
    """Return what the receipt holds a GPU to that multiplies in tf32. `error`: the reference's own.

    No CPU has such products, so the exporting machine cannot try them.
    """
    return {threshold_name(TF32): MARGIN * error}


def precision_figures(parity: PrecisionParity) -> dict[str, Any]:
    """Return the figures as the receipt holds them."""
    own = {} if parity.reference_error is None else {'reference_max_abs': parity.reference_error}
    return {
        'chunk': asdict(parity.chunk),
        'actions_scaled': asdict(parity.actions),
        'action_error': list(parity.action_error),
        **own,
        'variants': {name: asdict(found) for name, found in parity.variants.items()},
    }

