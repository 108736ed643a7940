# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Export a checkpoint to a verified bundle, or write nothing.

    ros2 run vla_deploy export --model CHECKPOINT --output BUNDLE
    python -m vla_deploy.cli.export --model CHECKPOINT --output BUNDLE

Exit code 0: the bundle is there and passed its gate. 1: the gate failed. 2: an error. 130:
interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vla_deploy.cli.output import interruptible, one_line, progress_lines, unforeseen

if TYPE_CHECKING:
    from vla_deploy.export.build import Exported


@interruptible('export', 'interrupted, nothing was written')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        # torch takes a second to import: bad usage should not wait for it
        from vla_deploy.export import build
        from vla_deploy.export.parity import GateError
        from vla_deploy.export.source import CheckpointError
        from vla_deploy.pipeline import BundleError, PolicyError
    except ImportError as error:
        print(f'export: {error}; pip install torch onnx onnx-ir onnxscript', file=sys.stderr)
        return 2
    options = build.ExportOptions(
        model=arguments.model,
        output=arguments.output,
        family=arguments.family,
        tokenizer=arguments.tokenizer,
        robot_io=arguments.robot_io,
        dims=arguments.dims,
        steps=arguments.steps,
        strict=arguments.strict,
        precision=arguments.precision,
    )
    try:
        exported = build.export_bundle(options, arguments.threads, progress_lines('export'))
    except GateError as error:
        for line in error.failures:
            print(f'export: gate failed, nothing was written: {line}', file=sys.stderr)
        return 1
    except (CheckpointError, BundleError, PolicyError, OSError) as error:
        print(f'export: {one_line(error)}', file=sys.stderr)
        return 2
    except Exception as error:  # noqa: BLE001 - said in one line, kept whole in a file
        print(f'export: nothing was written: {unforeseen("export", error)}', file=sys.stderr)
        return 2
    _print_result(exported, arguments.json)
    return 0


def _print_result(exported: Exported, as_json: bool) -> None:
    from vla_deploy.export.rungs import table

    for warning in exported.warnings:
        print(f'export: warning: {warning}', file=sys.stderr)
    for line in table(exported.parities):
        print(line, file=sys.stderr)
    if as_json:
        result = {
            'bundle': str(exported.path),
            'model_sha256': exported.model_sha256,
            'parity': exported.receipt['parity'],
            'warnings': list(exported.warnings),
        }
        print(json.dumps(result, sort_keys=True))
    else:
        print(f'{exported.path}: verified, model_sha256 {exported.model_sha256}')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='export', description='Export a checkpoint to a verified bundle, or write nothing.'
    )
    parser.add_argument(
        '--model', type=Path, required=True, metavar='CHECKPOINT', help='LeRobot checkpoint folder'
    )
    parser.add_argument(
        '--output', type=Path, required=True, metavar='BUNDLE', help='folder to make'
    )
    parser.add_argument('--family', help='expected family; an error if config.json says another')
    parser.add_argument(
        '--strict',
        action='store_true',
        help='gate at 1e-5, not 1e-4; require a current comparison with the reference, variants '
        'equal to the bit, and no dimension of the state whose std or range is 0 (by default a '
        'warning, since the reference accepts it and divides by its epsilon; an action whose std '
        'is 0 is constant, and stays a warning)',
    )
    parser.add_argument(
        '--precision',
        choices=('fp32', 'tf32', 'bf16', 'fp16', 'fp8', 'int8'),
        default='fp32',
        help='bf16 and fp16 add graphs with products in 16 bits for GPUs, int8 graphs for CPUs, to '
        'the float32 ones, which are always there; tf32 adds what a GPU is held to that computes '
        'those with tf32 products, and fp8 what backend torch_cuda is held to at fp8 (fp32)',
    )
    parser.add_argument(
        '--tokenizer', type=Path, metavar='DIR', help='folder with tokenizer.json'
    )
    parser.add_argument(
        '--robot-io', type=Path, metavar='FILE', help='joints, units, period (robot_io.yaml)'
    )
    parser.add_argument(
        '--dims', type=Path, metavar='FILE', help='head counts of pi0 and pi0.5, if not published'
    )
    parser.add_argument('--steps', type=int, metavar='N', help='Euler steps a chunk')
    parser.add_argument(
        '--threads', type=int, metavar='N',
        help='threads of the runtime while it is proven (one a core; the order of sums, and so the '
        'last bits, may depend on it)',
    )
    parser.add_argument('--json', action='store_true', help='print the result as JSON')
    return parser


if __name__ == '__main__':
    sys.exit(main())
