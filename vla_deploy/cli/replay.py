# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Feed what was recorded through the pipeline and the guard again, and compare.

    ros2 run vla_deploy replay BAG                     the same bundle: expect no difference
    ros2 run vla_deploy replay BAG --bundle B2 --diff actions --plot replay.png
    ros2 run vla_deploy replay BAG --fail-on actions=1e-6 --fail-on latency=1.5

Exit code 0: nothing differs that --fail-on names. 1: something does. 2: an error. 3: nothing
differs, but something could not be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vla_deploy.cli.output import interruptible, one_line, unforeseen
from vla_deploy.core.audit_file import AuditError
from vla_deploy.core.contract import ContractError
from vla_deploy.core.parameter import ParameterError
from vla_deploy.files import FileError, check_writable, write_bytes
from vla_deploy.pipeline import BundleError, ObservationError, PolicyError
from vla_deploy.trace.bag import Bag, BagError
from vla_deploy.trace.replay_report import Report


class PlotError(RuntimeError):
    """There is nothing to draw with; one line."""


DIFFS = ('actions', 'latency', 'guard')
_ERRORS = (AuditError, BagError, BundleError, ContractError, FileError, ObservationError,
           ParameterError, PlotError, PolicyError, OSError)  # fmt: skip


@interruptible('replay')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    diffs = DIFFS if arguments.diff == 'all' else (arguments.diff,)
    limits = dict(arguments.fail_on or [(name, 0.0) for name in diffs if name != 'latency'])
    limits.pop('none', None)
    foreign = set(limits) - set(diffs)
    if foreign:
        parser.error(f'--fail-on {min(foreign)}: is not compared with --diff {arguments.diff}')
    try:
        check_writable(arguments.output_json, arguments.plot)
        write_plot = _plotter() if arguments.plot is not None else None
        report = _replay(arguments, diffs)
        code = _tell(report, limits)
        if arguments.output_json is not None:
            text = json.dumps(report.to_mapping(), indent=1, sort_keys=True) + '\n'
            write_bytes(arguments.output_json, text.encode('ascii'))
        if write_plot is not None:
            write_plot(report, arguments.plot)
    except _ERRORS as error:
        print(f'replay: {one_line(error)}', file=sys.stderr)
        return 2
    except Exception as error:  # noqa: BLE001 - said in one line, kept whole in a file
        print(f'replay: {unforeseen("replay", error)}', file=sys.stderr)
        return 2
    return code


def _tell(report: Report, limits: Mapping[str, float]) -> int:
    """Print what differs and what could not be compared, and return the exit code."""
    print('\n'.join(report.lines()), flush=True)
    failures = report.failures(limits)
    for line in failures:
        print(f'replay: differs: {line}', file=sys.stderr)
    for line in report.gaps:
        print(f'replay: not compared: {line}', file=sys.stderr)
    return 1 if failures else 3 if report.gaps else 0


def _plotter() -> Callable[[Report, Path], None]:
    """Return what draws a report; raises PlotError."""
    try:
        from vla_deploy.trace.replay_plot import write_plot  # takes a second
    except ImportError as error:
        raise PlotError(f'--plot: {error}; pip install matplotlib') from error
    return write_plot


def _replay(arguments: argparse.Namespace, diffs: Sequence[str]) -> Report:
    # rclpy and the runtime take a second: bad usage should not wait for them
    from vla_deploy.ros.replayed_policy import ReplayedPolicy
    from vla_deploy.trace.replay import (
        FULL,
        journal_of,
        kept_images,
        recorded_parameters,
        replay_guard,
        seen_chunks,
    )
    from vla_deploy.trace.replay_gaps import held_chunks

    bag = Bag(arguments.bag)
    for _ in bag.messages(()):
        pass  # what lies beside the messages may stand anywhere
    report = Report(tuple(diffs), str(arguments.bag))
    if bag.broken:
        report.gaps.append(bag.broken)
    policy = ReplayedPolicy(recorded_parameters(bag, 'inference'), arguments.bundle)
    report.bundle_sha256 = policy.model_sha256
    held, kept = held_chunks(bag), kept_images(bag)
    report.gaps += held.gaps()
    for seen in seen_chunks(bag):
        if seen.missing:
            report.skip(seen, kept)
            continue
        report.add(seen, policy.infer(seen), policy.contract)
    if not report.chunks and (kept == FULL or not report.skipped):
        report.gaps.append('no chunk of the bag could be computed again')
    if 'guard' in diffs:
        log = journal_of(bag, arguments.journal)
        report.journal = str(log)
        for step, outputs, text in replay_guard(log, report.replayed_plans()):
            report.add_step(step, outputs, text)
            report.gaps += held.gaps_of(step)
        if not report.steps:
            report.gaps.append(f'{log}: no step of the guard is in its journal')
    return report


def _fail_on(text: str) -> tuple[str, float]:
    name, separator, value = text.partition('=')
    if name not in (*DIFFS, 'none') or (name in ('guard', 'none') and separator):
        raise argparse.ArgumentTypeError(f'{text!r} is not actions[=A], latency=F, guard or none')
    try:
        number = float(value) if separator else 0.0
    except ValueError:
        raise argparse.ArgumentTypeError(f'{value!r} is no number') from None
    if number < 0 or number != number or (name == 'latency' and not separator):
        raise argparse.ArgumentTypeError(f'{text!r}: latency needs a factor, and none is below 0')
    return name, number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='replay', description='Compute a recorded run again, and compare.'
    )
    parser.add_argument('bag', type=Path, metavar='BAG', help='folder or .mcap of a bag')
    parser.add_argument('--bundle', default='', metavar='B2', help='another bundle than recorded')
    parser.add_argument(
        '--diff', default='all', choices=(*DIFFS, 'all'),
        help='what to compare: actions, every element of every chunk; latency, percentiles of the '
        'inference time; guard, every decision and command of every tick; all of them (default)',
    )  # fmt: skip
    parser.add_argument(
        '--fail-on', action='append', type=_fail_on, metavar='WHAT',
        help='what makes exit code 1, several times if wanted: actions=A (robot units, 0 where '
        'left out), latency=F (p95 above F times the recorded one), guard (any other decision), '
        'none. Without it: actions and guard, where they are compared',
    )  # fmt: skip
    parser.add_argument('--journal', type=Path, metavar='LOG', help="the guard's audit log, if it "
                        'does not lie where it was written')  # fmt: skip
    parser.add_argument('--plot', type=Path, metavar='FILE.png', help='draw both')
    parser.add_argument('--output-json', type=Path, metavar='FILE', help='write the figures here')
    return parser


if __name__ == '__main__':
    sys.exit(main())
