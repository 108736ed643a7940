# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Run the demonstration: a simulated FR3 is told which cube to reach, through the whole graph."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import rclpy
from rclpy.signals import SignalHandlerOptions

from vla_deploy.bringup import BringUpOptions, Process, bring_up
from vla_deploy.cli.output import one_line
from vla_deploy.core.limits import JointLimits, load_limits
from vla_deploy.core.urdf import parse_urdf
from vla_deploy.demo.episode import ENDINGS, EpisodeResult, plan_episodes
from vla_deploy.demo.graph import DemoGraph, GraphError
from vla_deploy.demo.picture import write_picture
from vla_deploy.demo.report import (
    build_report,
    last_line,
    shortcomings,
    table,
    write_report,
)
from vla_deploy.export.own_bundle import BundleUnavailable, bundle_for
from vla_deploy.files import read_text, read_yaml
from vla_deploy.ros.transport import IMAGES, use_profile
from vla_deploy.share import share_directory
from vla_deploy.sim import reach
from vla_deploy.supervisor import Supervisor

_ROBOT = 'franka'
_CAMERA = 'front'
_REAL_TIME_CHECK_S = 2.0
_REAL_TIME_GAP_S = 0.1  # half of what makes the guard call the robot lost


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if the graph ran and nothing exceeded a limit, 1 if not or interrupted, 2 for bad
    arguments, or where no bundle can be had."""
    arguments = _parser().parse_args(argv)
    output = Path(arguments.output)
    log_path = output / 'nodes.log'
    try:
        if output.exists() and not output.is_dir():
            raise OSError(errno.ENOTDIR, 'is no folder; give another --output', str(output))
        bundle = bundle_for(_ROBOT, arguments.bundle)
        output.mkdir(parents=True, exist_ok=True)  # not before: a wrong bundle leaves no folder
        log = log_path.open('w')
    except (BundleUnavailable, OSError) as error:
        print(f'demo: {one_line(error)}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('demo: interrupted, nothing was started', file=sys.stderr)
        return 1
    clocks = ('wall', 'simulated') if arguments.clock == 'auto' else (arguments.clock,)
    with log:
        try:
            for clock in clocks:
                report, graph = _run(arguments, bundle, clock, log)
                if report:
                    break
        except GraphError as error:
            print(f'demo: {error}; the nodes said more in {log_path}', file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print('demo: interrupted', file=sys.stderr)
            return 1
    return _conclude(report, graph, output)


def _run(
    arguments: argparse.Namespace, bundle: Path, clock: str, log: TextIO
) -> tuple[dict[str, Any], DemoGraph]:
    """Run all episodes on one clock; the report is empty if real time turns out not to be kept."""
    simulated = clock == 'simulated'
    options = BringUpOptions(
        sim=True,
        use_sim_time=simulated,
        backend=arguments.backend,
        provider=arguments.provider,
        precision=arguments.precision,
        log_folder=str(Path(arguments.output) / 'audit'),
    )
    processes = [_with_controls(p) for p in bring_up(_ROBOT, options, bundle)]
    plans = plan_episodes(arguments.episodes, arguments.controls, arguments.seed)
    print(f'starting {", ".join(p.name for p in processes)} on the {clock} clock …', flush=True)
    supervisor = Supervisor(processes, log)
    use_profile(IMAGES)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    graph = None
    try:
        graph = DemoGraph(_limits(), _CAMERA, simulated)
        graph.wait_until_up(supervisor.poll)
        gap_s = graph.largest_state_gap_s(_REAL_TIME_CHECK_S)
        if arguments.clock == 'auto' and not simulated and gap_s > _REAL_TIME_GAP_S:
            _tell_slow(f'joint states are {gap_s:.2f} s apart')
            return {}, graph
        results = []
        for plan in plans:
            results.append(graph.run(plan, keep_pictures=plan.index < 3))
            if arguments.clock == 'auto' and not simulated and graph.lost_real_time():
                _tell_slow(graph.guard.reason)
                return {}, graph
            print(_episode_line(results[-1], len(plans)), flush=True)
            problem = supervisor.poll()
            if problem:
                raise GraphError(problem)
        report = build_report(
            results, graph.recording, graph.guard, graph.policy, graph.check.excess
        )
        return {'clock': clock, **report}, graph
    finally:
        if graph is not None:
            graph.close()
        rclpy.shutdown()
        supervisor.end()


def _tell_slow(why: str) -> None:
    print(
        f'this machine does not keep real time ({why}): starting again on simulated time, '
        'which waits',
        flush=True,
    )


def _conclude(report: dict[str, Any], graph: DemoGraph, output: Path) -> int:
    """Write the report and the picture, print what they say, and return the exit code."""
    write_report(report, output / 'report.json')
    title = last_line(report)
    write_picture(graph.recording, _limits(), title, output / 'report.png')
    print(table(report))
    print(f'\nreport: {output / "report.json"}, picture: {output / "report.png"}')
    failed = shortcomings(report)
    for line in failed:
        print(f'demo: {line}', file=sys.stderr)
    print(title, flush=True)
    return 1 if failed else 0


def _with_controls(process: Process) -> Process:
    """Let inference take a text without words, which one of the controls sends."""
    if process.name != 'inference':
        return process
    return replace(process, command=(*process.command, '-p', 'allow_blank_instruction:=true'))


def _limits() -> JointLimits:
    share = share_directory()
    description = read_yaml(share / 'config' / _ROBOT / 'bringup.yaml')
    urdf = parse_urdf(read_text(share / description['urdf']))
    return load_limits(urdf, reach.JOINTS, read_yaml(share / description['limits']))


def _episode_line(result: EpisodeResult, episodes: int) -> str:
    plan = result.plan
    text = {'reach': plan.instruction, 'blank': '(no text)', 'black': '(black images)'}[plan.kind]
    verdict = 'reached' if result.reached else 'not reached'
    if result.ended not in ENDINGS:
        verdict = result.ended
    return (
        f'{plan.index + 1:>4}/{episodes}  {text:<22} {verdict:<12}'
        f'{100 * result.distance_m:5.1f} cm after {result.duration_s:.1f} s'
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='demo', description=__doc__)
    parser.add_argument('--episodes', type=_count, default=12, help='episodes (default 12)')
    parser.add_argument(
        '--controls', type=_count, default=3,
        help='further episodes without text, and as many with black images (default 3)',
    )
    parser.add_argument('--seed', type=_count, default=1, help='of the scenes (default 1)')
    parser.add_argument('--bundle', default='', help="another bundle than the robot's own")
    parser.add_argument('--backend', default='onnx_runtime', help='what computes the policy')
    parser.add_argument('--provider', default='cpu', help='where the backend computes it')
    parser.add_argument(
        '--precision', default='fp32', help='in which precision, if the bundle has it (fp32)'
    )
    parser.add_argument(
        '--clock',
        choices=('auto', 'wall', 'simulated'),
        default='auto',
        help='auto: the wall clock, or simulated time where the machine does not keep real time',
    )
    parser.add_argument(
        '--output', default='build/demo', metavar='DIR',
        help='folder of the report, made where there is none (default build/demo, in the current '
        'folder)',
    )
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 100_000:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 to 100000')
    return int(text)


if __name__ == '__main__':
    sys.exit(main())
