# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The journal of the guard: what went into each step and what came out, and the same steps again.

On the same machine, with the same build, a replay gives identical commands, violations and
states: the core has no clock and no randomness of its own.

    for step, outputs in replay(core_of(genesis), read_journal(log)):
        print(step.now_ros_ns, difference(step, outputs))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_deploy.core.audit_file import AuditError, read_records
from vla_deploy.core.guard import GuardCore
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import Answer, GuardState, Inputs, Outputs
from vla_deploy.core.limits import JointLimit, JointLimits
from vla_deploy.core.plain import PlainError, from_plain, to_plain
from vla_deploy.core.trajectory import Trajectory
from vla_deploy.core.violation import Violation
from vla_deploy.core.workspace_limits import WorkspaceLimits

FORMAT = 1


class JournalError(AuditError):
    """A journal cannot be replayed; one line that names the record."""


@dataclass(frozen=True)
class Outcome:
    """What a step decided, enough to hold a replay against it to the bit.

    command, shadow: SHA-256 over the times, positions and velocities of the trajectory that was
    published, or would have been; empty without one. verdicts: (session_id, seq, verdict).
    """

    state: GuardState
    reason: str = ''
    command: str = ''
    shadow: str = ''
    violations: tuple[Violation, ...] = ()
    verdicts: tuple[tuple[str, int, str], ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class JournalStep:
    """One step of the guard as it was recorded; `number` counts the records of the log."""

    number: int
    now_ros_ns: int
    now_steady_ns: int
    inputs: Inputs
    outcome: Outcome


@dataclass(frozen=True)
class Genesis:
    """What a log begins with: all that the guard was made of.

    files: name -> SHA-256 of the URDF, the limits and whatever else was read. build: name ->
    version of the package, of Python and numpy, and the machine. model_sha256: digest of the
    bundle that was to be served, empty if that was not known.
    """

    limits: tuple[JointLimit, ...]
    notes: tuple[str, ...]
    limits_sha256: str
    config: GuardConfig
    files: dict[str, str]
    build: dict[str, str]
    format: int = 0
    workspace: WorkspaceLimits | None = None
    model_sha256: str = ''


def genesis_of(
    limits: JointLimits, config: GuardConfig, files: Mapping[str, str], build: Mapping[str, str],
    model_sha256: str = '',
) -> dict[str, Any]:
    """Return the first record of a log."""
    genesis = Genesis(limits.joints, limits.notes, limits.sha256, config, dict(files),
                      dict(build), FORMAT, limits.workspace, model_sha256)
    return {'kind': 'genesis', **to_plain(genesis)}


def core_of(genesis: Genesis) -> GuardCore:
    """Return a guard as it was when the log began."""
    limits = JointLimits.of(genesis.limits, genesis.notes, genesis.workspace)
    return GuardCore(limits, genesis.config)


def step_record(
    now_ros_ns: int, now_steady_ns: int, inputs: Inputs, outputs: Outputs
) -> dict[str, Any]:
    """Return the record of one step."""
    return {
        'kind': 'step',
        'ros_ns': now_ros_ns,
        'steady_ns': now_steady_ns,
        'in': to_plain(inputs),
        'out': to_plain(outcome_of(outputs)),
    }


def outcome_of(outputs: Outputs) -> Outcome:
    """Return what the journal keeps of the outputs of a step."""
    return Outcome(
        state=outputs.state,
        reason=outputs.reason,
        command=command_digest(outputs.trajectory),
        shadow=command_digest(outputs.shadow_trajectory),
        violations=outputs.violations,
        verdicts=tuple((r.session_id, r.seq, r.verdict) for r in outputs.reports),
        answers=outputs.answers,
    )


def command_digest(trajectory: Trajectory | None) -> str:
    """Return the SHA-256 of every knot of a trajectory; empty for None."""
    if trajectory is None:
        return ''
    digest = hashlib.sha256(trajectory.times.tobytes())
    digest.update(trajectory.position.tobytes())
    digest.update(trajectory.velocity.tobytes())
    return digest.hexdigest()


def read_genesis(log: Path) -> Genesis:
    """Return the genesis of a log, chain checked as far; raises AuditError."""
    return _genesis(*next(read_records(log)))  # a log without a record raises there


def read_journal(log: Path) -> Iterator[JournalStep]:
    """Return each step of a log, in order, its rotated files followed, its chain checked.

    Raises AuditError at a record that was tampered with, and JournalError at a gap: what the guard
    did after it cannot be computed from the journal.
    """
    for number, record in read_records(log):
        if record['kind'] == 'lost':
            raise JournalError(f'{log}: record {number}: {record["count"]} records were lost here '
                               f'({record["reason"]}); no replay goes beyond')
        if record['kind'] == 'step':
            yield _step(number, record)


def replay(
    core: GuardCore, journal: Iterable[JournalStep]
) -> Iterator[tuple[JournalStep, Outputs]]:
    """Return each step with what `core` makes of it; `difference` says whether that is the same."""
    for step in journal:
        yield step, core.step(step.now_ros_ns, step.now_steady_ns, step.inputs)


def difference(step: JournalStep, outputs: Outputs) -> str:
    """Return in what a replayed step differs from the recorded one; empty: identical."""
    was, is_now = to_plain(step.outcome), to_plain(outcome_of(outputs))
    return ', '.join(
        f'{key}: {was.get(key)!r} was recorded, replayed {is_now.get(key)!r}'
        for key in sorted({*was, *is_now})
        if was.get(key) != is_now.get(key)
    )


def _genesis(number: int, record: Mapping[str, Any]) -> Genesis:
    plain = {key: value for key, value in record.items() if key not in ('kind', 'n')}
    if record['kind'] != 'genesis' or plain.get('format') != FORMAT:
        raise JournalError(f'record {number}: is not the genesis of a journal of format {FORMAT}')
    try:
        return from_plain(Genesis, plain)
    except PlainError as error:
        raise JournalError(f'record {number}: is of another version: {error}') from None


def _step(number: int, record: Mapping[str, Any]) -> JournalStep:
    try:
        return JournalStep(
            number, record['ros_ns'], record['steady_ns'],
            from_plain(Inputs, record['in']), from_plain(Outcome, record['out']),
        )
    except (KeyError, PlainError) as error:
        raise JournalError(f'record {number}: is of another version: {error}') from None
