# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Compares the variants of a bundle with one another: the same chunk, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.export.fixtures import Case
from vla_deploy.export.parity import STRICT_THRESHOLD, compare
from vla_deploy.export.rungs import Progress
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.backend import BackendOptions
from vla_deploy.pipeline.bundle import Bundle, graphs_of

WHOLE_VARIANTS = ('unrolled', 'loop')


@dataclass(frozen=True)
class VariantParity:
    """A variant's chunks against those of `split`, over all fixtures."""

    bit_identical: bool
    max_abs: float


def run_variants(
    bundle: Bundle,
    precision: str,
    cases: Sequence[Case],
    split: Sequence[NDArray[np.float32]],
    threads: int | None,
    progress: Progress,
) -> dict[str, VariantParity]:
    """Run every variant that a bundle holds beside the split pair, one after the other.

    `split`: the chunks of the pair on the same cases, float32 [steps,padded_dim]. Raises GateError
    where a variant gives NaN.
    """
    found = {}
    for variant in WHOLE_VARIANTS:
        if getattr(graphs_of(precision, 'cpu'), variant) in bundle.receipt['files']:
            progress(f'variant {variant} against split, {precision}')
            found[variant] = _compare(bundle, precision, variant, cases, split, threads)
    return found


def _compare(
    bundle: Bundle,
    precision: str,
    variant: str,
    cases: Sequence[Case],
    split: Sequence[NDArray[np.float32]],
    threads: int | None,
) -> VariantParity:
    options = BackendOptions(precision=precision, variant=variant, threads=threads)
    policy = Policy.serve(bundle, 'onnx_runtime', options)
    chunks = [policy.infer(case.observation, noise=case.noise).raw for case in cases]
    figures = [
        compare(chunk, expected, f'{precision}, variant {variant}')
        for chunk, expected in zip(chunks, split, strict=True)
    ]
    same = all(np.array_equal(a, b) for a, b in zip(chunks, split, strict=True))
    return VariantParity(same, max(figure.max_abs for figure in figures))


def variant_failures(
    precision: str, variants: Mapping[str, VariantParity], threshold: float
) -> list[str]:
    """Return one line for each variant that misses the gate; a strict one wants equal bits."""
    strict = threshold <= STRICT_THRESHOLD
    return [
        f'{precision}, variant {name}: max_abs to split {found.max_abs!r} '
        f'({"equal bits" if strict else f"below {threshold!r}"})'
        for name, found in variants.items()
        if not (found.bit_identical if strict else found.max_abs < threshold)
    ]


def variant_notes(precision: str, variants: Mapping[str, VariantParity]) -> list[str]:
    """Return one line for each variant that passed without being identical."""
    return [
        f'{precision}, variant {name} differs from split by up to {found.max_abs!r}'
        for name, found in variants.items()
        if not found.bit_identical
    ]
