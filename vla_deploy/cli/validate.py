# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Run the parity ladder again on a finished bundle, or check a data set (validate_dataset.py).

    ros2 run vla_deploy validate export BUNDLE --model CHECKPOINT
    ros2 run vla_deploy validate dataset PATH --robot so101
    python -m vla_deploy.cli.validate export BUNDLE

    python -m vla_deploy.cli.validate export BUNDLE --init-ci

Exit code 0: all rungs passed. 1: one failed. 2: an error, a changed bundle among them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vla_deploy.cli import validate_dataset
from vla_deploy.cli.output import interruptible, one_line, progress_lines, unforeseen
from vla_deploy.files import check_writable, write_bytes

if TYPE_CHECKING:
    from vla_deploy.export.revalidate import Validation


@interruptible('validate')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.verb == 'export' and not arguments.threshold > 0:
        parser.error(f'--threshold is {arguments.threshold}, but must be above 0')
    if arguments.verb == 'export' and arguments.ci_file and not arguments.init_ci:
        parser.error('--ci-file needs --init-ci, which writes that file')
    try:
        return int(arguments.run(arguments))
    except Exception as error:  # noqa: BLE001 - said in one line, kept whole in a file
        print(f'validate: {unforeseen("validate", error)}', file=sys.stderr)
        return 2


def _export(arguments: argparse.Namespace) -> int:
    return _init_ci(arguments) if arguments.init_ci else _validate(arguments)


def _init_ci(arguments: argparse.Namespace) -> int:
    from vla_deploy.export.ci_workflow import WORKFLOW, WorkflowError, workflow, write_workflow

    path = arguments.ci_file or WORKFLOW
    try:
        text = workflow(arguments.bundle, arguments.model, arguments.threshold)
        if str(path) == '-':
            print(text, end='')
        else:
            write_workflow(path, text)
            print(f'{path}: written; commit it together with the bundle')
    except (WorkflowError, OSError) as error:
        print(f'validate: {one_line(error)}', file=sys.stderr)
        return 2
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    try:
        # torch takes a second to import: bad usage should not wait for it
        from vla_deploy.export.parity import GateError
        from vla_deploy.export.revalidate import validate_bundle
        from vla_deploy.export.source import CheckpointError
        from vla_deploy.pipeline import BundleError, PolicyError
    except ImportError as error:
        print(f'validate: {error}; pip install torch onnx onnx-ir onnxscript', file=sys.stderr)
        return 2
    try:
        check_writable(arguments.output_json)
        result = validate_bundle(
            arguments.bundle,
            arguments.model,
            arguments.tokenizer,
            arguments.dims,
            arguments.threshold,
            arguments.threads,
            progress_lines('validate'),
        )
        _tell(result)
        if arguments.output_json is not None:
            text = json.dumps(result.summary, indent=1, sort_keys=True) + '\n'
            write_bytes(arguments.output_json, text.encode('ascii'))
    except GateError as error:
        for line in error.failures:
            print(f'validate: failed: {line}', file=sys.stderr)
        return 1
    except (CheckpointError, BundleError, PolicyError, OSError) as error:
        print(f'validate: {one_line(error)}', file=sys.stderr)
        return 2
    return 1 if result.failures else 0


def _tell(result: Validation) -> None:
    from vla_deploy.export.rungs import table

    print('\n'.join(table(result.parities)))
    for line in result.failures:
        print(f'validate: failed: {line}', file=sys.stderr)
    target = result.summary['parity']['target']
    print(f'rung 3, target: max_abs {target["max_abs"]!r}, cosine {target["cosine"]!r}')
    print('FAIL' if result.failures else 'PASS', flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='validate', description='Check what was made before.')
    verbs = parser.add_subparsers(dest='verb', required=True)
    export = verbs.add_parser('export', help='run the parity ladder again on a bundle')
    export.set_defaults(run=_export)
    export.add_argument('bundle', type=Path, metavar='BUNDLE', help='folder that export wrote')
    export.add_argument(
        '--model', type=Path, metavar='CHECKPOINT', help='what the bundle was made from (rung 1)'
    )
    export.add_argument('--tokenizer', type=Path, metavar='DIR', help='folder with tokenizer.json')
    export.add_argument('--dims', type=Path, metavar='FILE', help='head counts, as for export')
    export.add_argument('--threshold', type=float, default=1e-4, help='gate on max_abs (1e-4)')
    export.add_argument(
        '--threads', type=int, metavar='N',
        help='threads of the runtime while it is proven (one a core; the order of sums, and so the '
        'last bits, may depend on it)',
    )
    export.add_argument('--output-json', type=Path, metavar='FILE', help='write the figures here')
    export.add_argument(
        '--init-ci',
        action='store_true',
        help='run nothing; write a GitHub Actions workflow that validates BUNDLE in a repository',
    )
    export.add_argument(
        '--ci-file',
        type=Path,
        metavar='FILE',
        help='where --init-ci writes, - for stdout (.github/workflows/vla_parity.yml); never over '
        'a file that is there',
    )
    validate_dataset.add_parser(verbs)
    return parser


if __name__ == '__main__':
    sys.exit(main())
