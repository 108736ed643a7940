# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""receipt.json and VERIFICATION.md: what a bundle was made of and how it was proven.

Neither holds a time, a path or a host, so that the same checkpoint on the same machine gives the
same bundle.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vla_deploy import __version__
from vla_deploy.export.checkpoint import Checkpoint
from vla_deploy.export.fixtures import SEED
from vla_deploy.export.parity import GraphParity, worst
from vla_deploy.export.precisions import (
    PRECISIONS,
    PrecisionParity,
    precision_figures,
    precision_thresholds,
    tf32_thresholds,
)
from vla_deploy.export.rungs import DIRECT, FixtureParity, figures_mapping, table
from vla_deploy.export.variants import VariantParity
from vla_deploy.pipeline import SelfTest
from vla_deploy.pipeline.bundle import TF32, sha256_of_file, threshold_name

_LIBRARIES = ('torch', 'onnx', 'onnxscript', 'onnxruntime', 'numpy', 'tokenizers', 'safetensors')


def versions() -> dict[str, str]:
    """Return the versions that decide the numbers."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {
        'vla_deploy': __version__,
        'python': platform.python_version(),
        'machine': platform.machine(),
        **found,
    }


def checkpoint_mapping(checkpoint: Checkpoint, dtypes: Sequence[str]) -> dict[str, Any]:
    """Return the files that were read by digest; weights that were not float32 are said to be."""
    files = {name: sha256_of_file(path) for name, path in checkpoint.files.items()}
    name = checkpoint.processors.tokenization.name
    return {
        'files': files,
        'weights_dtypes': list(dtypes),
        'backbone': checkpoint.config.get('vlm_model_name', name),
        'tokenizer_sha256': sha256_of_file(checkpoint.tokenizer),
        'dims_sha256': sha256_of_file(checkpoint.dims) if checkpoint.dims else None,
    }


def make_receipt(
    checkpoint: Mapping[str, Any],
    family: str,
    parities: Sequence[FixtureParity],
    evidence: Mapping[str, Any],
    thresholds: Mapping[str, float],
    target: SelfTest,
    variants: Mapping[str, VariantParity],
    fused: Sequence[GraphParity],
) -> dict[str, Any]:
    """Return the receipt without its list of files."""
    return {
        'schema_version': 1,
        'family': family,
        'checkpoint': dict(checkpoint),
        'versions': versions(),
        'seeds': {'fixtures': SEED},
        'thresholds': dict(thresholds),
        'parity': {
            **figures_mapping(parities),
            'target': {
                'backend': 'onnx_runtime',
                'provider': 'cpu',
                'precision': 'fp32',
                'variant': 'split',
                'max_abs': target.max_abs,
                'cosine': target.cosine,
            },
            'variants': {name: asdict(found) for name, found in variants.items()},
            'fused_graph_chunk': asdict(worst(parity.chunk for parity in fused)),
        },
        'reference': dict(evidence),
    }


def with_precision(receipt: Mapping[str, Any], parity: PrecisionParity) -> dict[str, Any]:
    """Return the receipt with what another precision gave, and what it is held to."""
    return {
        **receipt,
        'thresholds': {**receipt['thresholds'], **precision_thresholds(parity)},
        'parity': {**receipt['parity'], parity.precision: precision_figures(parity)},
    }


def with_tf32(receipt: Mapping[str, Any], error: float) -> dict[str, Any]:
    """Return the receipt with the reference's own error at tf32, and what a GPU is held to."""
    return {
        **receipt,
        'thresholds': {**receipt['thresholds'], **tf32_thresholds(error)},
        'parity': {**receipt['parity'], TF32: {'reference_max_abs': error}},
    }


def report(receipt: Mapping[str, Any], parities: Sequence[FixtureParity]) -> str:
    """Return VERIFICATION.md."""
    reference = receipt['reference']
    dtypes = ', '.join(receipt['checkpoint']['weights_dtypes'])
    thresholds = receipt['thresholds']
    target = receipt['parity']['target']
    lines = [
        f'# Verification of this bundle ({receipt["family"]})',
        '',
        f'Weights in the checkpoint: {dtypes}; all figures are for float32 arithmetic on a CPU.',
        f'Gate: max_abs < {thresholds["graph_max_abs"]!r}, cosine >= {thresholds["min_cosine"]!r}.',
        '',
        '- Rung 1 compares the exported graphs with the torch modules, from equal model inputs:',
        '  every element of the whole chunk.',
        '- Rung 2 compares the served pipeline with a torch pipeline that has its own processors,',
        '  from raw images, state and text: the model-space chunk, and robot-unit actions with',
        '  each dimension divided by max(1, |mean| + 4 std), or by the larger bound of its range.',
        '- Rung 3 runs the same fixtures through the backend that serves, at every configure.',
        '',
        *table(parities),
        '',
        f'Rung 3 on the exporting machine ({target["backend"]}, {target["provider"]}, '
        f'{target["precision"]}, {target["variant"]}): max_abs {target["max_abs"]!r}, '
        f'cosine {target["cosine"]!r}.',
        '',
        *_variant_lines(receipt['parity']['variants']),
        '- The graphs for GPUs (rung 1, on a CPU): max_abs '
        f'{receipt["parity"]["fused_graph_chunk"]["max_abs"]!r}.',
        '',
        *_precision_lines(receipt),
        '## Reference',
        '',
        *_reference_lines(reference),
    ]
    lines += ['', '## Versions', '']
    lines += [f'- {name} {version}' for name, version in sorted(receipt['versions'].items())]
    return '\n'.join(lines) + '\n'


def _reference_lines(reference: Mapping[str, Any]) -> list[str]:
    names = ', '.join(f'{k} {v}' for k, v in sorted(reference['reference'].items()))
    if reference['kind'] == DIRECT:
        return [
            f'Rungs 2 and 3 compare with {names}, run on this checkpoint with its own processors.',
            'The torch modules of rung 1 differ from it by at most '
            f'{reference["torch_chunk_max_abs"]!r} in model space.',
        ]
    lines = [
        f'The torch pipeline was compared with {names} on recorded cases, not on this checkpoint',
        f'({reference["why_not_direct"]}):',
        '',
    ]
    lines += [f'- {name}: {figures}' for name, figures in sorted(reference['cases'].items())]
    if reference['changed_sources']:
        changed = ', '.join(reference['changed_sources'])
        lines += ['', f'**Changed since that comparison: {changed}. It does not hold for them.**']
    return lines


def _variant_lines(variants: Mapping[str, Any]) -> list[str]:
    return [
        f'- Variant {name} against split: '
        + ('equal to the bit.' if found['bit_identical'] else f'max_abs {found["max_abs"]!r}.')
        for name, found in sorted(variants.items())
    ]


_ABOUT = {
    'int8': 'The weights of matrix products in 8 bits, activations quantised as they come,',
    'bf16': 'Products of large weights with factors and results rounded to bfloat16,',
    'fp16': 'Products of large weights with factors and results rounded to float16,',
    'fp8': 'Backend torch_cuda on a CPU, as at bf16 but with both factors of the products of the\n'
    "language layers' MLPs in float8,",
}


def _precision_lines(receipt: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for precision in PRECISIONS:
        if precision in receipt['parity']:
            figures = receipt['parity'][precision]
            lines += _lines_of(precision, figures, receipt['thresholds'])
    if TF32 in receipt['parity']:
        lines += [
            f'## {TF32}',
            '',
            'No graphs of its own and not tried here: a GPU computes the float32 graphs with the',
            'factors of products cut to tf32. The torch modules themselves, cut likewise, differ',
            f'by max_abs {receipt["parity"][TF32]["reference_max_abs"]!r}; rung 3 on the serving',
            f'machine allows {receipt["thresholds"][threshold_name(TF32)]!r}.',
            '',
        ]
    return lines


def _lines_of(
    precision: str, figures: Mapping[str, Any], thresholds: Mapping[str, float]
) -> list[str]:
    chunk, actions = figures['chunk'], figures['actions_scaled']
    at_most = thresholds[threshold_name(precision)]
    lines = [
        f'## {precision}',
        '',
        _ABOUT[precision],
        'against the float32 reference, over all fixtures:',
        '',
        f'- chunk: max_abs {chunk["max_abs"]!r} (rung 3 on the serving machine: at most '
        f'{at_most!r}), cosine {chunk["cosine"]!r}',
    ]
    if 'reference_max_abs' in figures:
        lines.append(
            f'- the torch modules themselves at {precision}: max_abs '
            f'{figures["reference_max_abs"]!r}, of which 1.25 times is allowed'
        )
    cosine = thresholds.get(f'{precision}_min_cosine')
    if cosine is not None:
        lines.append(f'- cosine at least {cosine!r}, actions at most '
                     f'{thresholds[f"{precision}_actions_scaled_max_abs"]!r}')
    return [
        *lines,
        f'- actions, each dimension divided by its size: max_abs {actions["max_abs"]!r}',
        '- largest error of each action dimension, in its robot unit: '
        + ', '.join(repr(error) for error in figures['action_error']),
        *_variant_lines(figures['variants']),
        '',
    ]
