# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The report of a run: JSON for machines, a few lines for people."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla_deploy.demo.episode import ENDINGS, EpisodeResult
from vla_deploy.demo.excess import Excess
from vla_deploy.demo.graph import Recording
from vla_deploy.demo.statistics import percentiles_ms, wilson_interval
from vla_deploy.sim import reach
from vla_deploy_msgs.msg import GuardStatus, PolicyStatus


def build_report(
    results: Sequence[EpisodeResult],
    recording: Recording,
    guard: GuardStatus,
    policy: PolicyStatus,
    excess: Excess,
) -> dict[str, Any]:
    """Return everything that the run showed, as JSON values."""
    told = [r for r in results if r.plan.kind == 'reach']
    other = [r for r in told if r.plan.colour != r.plan.drawn]
    latency = {stage: percentiles_ms(s) for stage, s in recording.stages_s.items()}
    latency['guard'] = {
        'p50': guard.step_p50_s * 1e3,
        'p95': guard.step_p95_s * 1e3,
        'p99': guard.step_p99_s * 1e3,
        'max': guard.step_max_s * 1e3,
    }
    return {
        'model_sha256': policy.model_sha256,
        'backend': f'{policy.backend}/{policy.provider}/{policy.precision}/{policy.variant}',
        'parity': {'max_abs': policy.parity_max_abs, 'threshold': policy.parity_threshold},
        'reached': _rate(told, reach.SUCCESS_M),
        'reached_within_2_cm': _rate(told, reach.STRICT_M),
        'by_colour': {
            colour: _rate([r for r in told if r.plan.colour == colour], reach.SUCCESS_M)
            for colour in reach.COLOURS
        },
        'told_another_than_drawn': {
            'at_the_named_cube': _rate(other, reach.SUCCESS_M),
            'at_the_drawn_cube': _count(
                sum(r.nearest == r.plan.drawn and r.distance_m > reach.SUCCESS_M for r in other),
                len(other),
            ),
        },
        'controls': {
            kind: _rate([r for r in results if r.plan.kind == kind], reach.SUCCESS_M)
            for kind in ('blank', 'black')
        },
        'latency_ms': latency,
        'guard': {
            'state': guard.state_name,
            'mode': guard.mode,
            'sched_fifo': guard.sched_fifo,
            'chunks_accepted': guard.chunks_accepted,
            'chunks_clamped': guard.chunks_clamped,
            'chunks_refused': guard.chunks_refused,
            'commands_published': guard.commands_published,
            'violations': dict(zip(guard.rule_names, map(int, guard.rule_counts), strict=True)),
            'worst_margin': guard.worst_margin,
            'tick_lateness_p99_ms': guard.tick_lateness_p99_s * 1e3,
        },
        # JSON knows no NaN: what was not a number is null.
        'largest_use_of_limits': {
            **{name: use if math.isfinite(use) else None for name, use in asdict(excess).items()},
            'exceeded': excess.any,
        },
        'episodes': [r.to_mapping() for r in results],
    }


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report beside its target, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.json.part')
    temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + '\n')
    temporary.rename(path)


def table(report: dict[str, Any]) -> str:
    """Return the lines that are printed at the end."""
    lines = ['', f'{"stage":<12}{"p50":>9}{"p95":>9}{"p99":>9}   ms']
    for stage, p in report['latency_ms'].items():
        if p:
            lines.append(f'{stage:<12}{p["p50"]:>9.3f}{p["p95"]:>9.3f}{p["p99"]:>9.3f}')
    guard, use = report['guard'], report['largest_use_of_limits']
    told_another = report['told_another_than_drawn']['at_the_named_cube']
    lines += [
        '',
        f'guard: {guard["chunks_accepted"]} chunks executed as they were, '
        f'{guard["chunks_clamped"]} within limits, {guard["chunks_refused"]} refused; '
        f'{guard["commands_published"]} commands',
        'largest use of a limit: '
        + ', '.join(f'{k} {_percent(v)}' for k, v in use.items() if k != 'exceeded'),
        '',
        _line('within 2 cm', report['reached_within_2_cm']),
        *(_line(f'{colour} cube', rate) for colour, rate in report['by_colour'].items()),
        _line('told another cube than drawn', told_another),
        _line('control: no text', report['controls']['blank']),
        _line('control: black images', report['controls']['black']),
    ]
    return '\n'.join(lines)


def last_line(report: dict[str, Any]) -> str:
    """Return the one line that sums the run up."""
    rate = report['reached']
    low, high = rate['wilson_95']
    chunk = report['latency_ms']['chunk']
    latency = f'{chunk["p95"]:.1f} ms' if chunk else 'unknown'
    return (
        f'demo: {rate["successes"]} of {rate["episodes"]} reached '
        f'(95 % CI {100 * low:.0f}–{100 * high:.0f} %), chunk latency p95 {latency}'
    )


def shortcomings(report: dict[str, Any]) -> list[str]:
    """Return what makes the run a failure, a line each: the graph must run, within every limit."""
    found = []
    if report['largest_use_of_limits']['exceeded']:
        found.append('a limit was exceeded')
    if not report['guard']['commands_published']:
        found.append('the guard commanded nothing')
    if not report['latency_ms']['chunk']:
        found.append('inference sent no chunk')
    return found + [f'episode {episode["index"] + 1} was cut short: {episode["ended"]}'
                    for episode in report['episodes'] if episode['ended'] not in ENDINGS]


def _percent(part: float | None) -> str:
    return 'not a number' if part is None else f'{100 * part:.0f} %'


def _rate(results: Sequence[EpisodeResult], within_m: float) -> dict[str, Any]:
    return _count(sum(r.distance_m <= within_m for r in results), len(results))


def _count(successes: int, episodes: int) -> dict[str, Any]:
    return {
        'successes': int(successes),
        'episodes': episodes,
        'wilson_95': list(wilson_interval(int(successes), episodes)),
    }


def _line(name: str, rate: dict[str, Any]) -> str:
    low, high = rate['wilson_95']
    interval = f'95 % CI {100 * low:.0f}–{100 * high:.0f} %' if rate['episodes'] else 'not run'
    return f'{name:<30}{rate["successes"]:>4} of {rate["episodes"]:<4} {interval}'
