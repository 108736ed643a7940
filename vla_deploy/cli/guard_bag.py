# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a recorded run holds for `guard explain`: a bag, or an audit log of the guard."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from vla_deploy.core.audit_file import NoLogError, file_name
from vla_deploy.core.explain import Arrival, Explained
from vla_deploy.core.journal import JournalStep, read_journal
from vla_deploy.core.violation import Action, Violation
from vla_deploy.ros.chunk_messages import message_to_chunk
from vla_deploy.ros.conversions import time_ns
from vla_deploy.ros.guard_inputs import message_to_joint_state
from vla_deploy.trace.bag import Bag, BagError, Recorded

T = TypeVar('T')

CHUNK = 'vla_deploy_msgs/msg/ActionChunk'
JOINT_STATE = 'sensor_msgs/msg/JointState'
VIOLATION = 'vla_deploy_msgs/msg/Violation'


def is_bag(path: Path) -> bool:
    """Whether this is a bag, and not an audit log."""
    return path.suffix == '.mcap' or any(path.glob('*.mcap'))


def recorded(path: Path) -> Iterator[Explained]:
    """Return what the guard found at the time; raises AuditError and BagError.

    In a bag equal violations that came too fast are missing: the guard publishes only their count.
    """
    yield from _recorded_bag(path) if is_bag(path) else _recorded_log(path)


def arrivals(path: Path) -> Iterator[Arrival]:
    """Return the chunks and joint states of a run in order; raises AuditError and BagError."""
    if is_bag(path):
        bag = Bag(path)
        for entry in bag.messages({CHUNK, JOINT_STATE}):
            yield _understood(bag, entry, _arrival)
        _tell_cut(bag)
        return
    for step in _journal(path):
        yield Arrival(step.now_ros_ns, None, step.inputs.joint_state)
        for chunk in step.inputs.chunks:
            yield Arrival(step.now_ros_ns, chunk)


def _recorded_bag(path: Path) -> Iterator[Explained]:
    bag = Bag(path)
    for entry in bag.messages({VIOLATION}):
        yield _understood(bag, entry, _explained)
    _tell_cut(bag)


def _understood(bag: Bag, entry: Recorded, make: Callable[[Recorded, Any], T]) -> T:
    """Return what a message says; raises BagError where it is of another version."""
    msg = bag.decode(entry)
    try:
        return make(entry, msg)
    except (AttributeError, TypeError, ValueError) as error:
        raise BagError(
            f'{bag.path}: {entry.topic}: is no {entry.type_name} of this version: {error}'
        ) from error


def _arrival(entry: Recorded, msg: Any) -> Arrival:
    if entry.type_name == CHUNK:
        return Arrival(entry.log_ns, message_to_chunk(msg))
    return Arrival(entry.log_ns, None, message_to_joint_state(msg))


def _explained(_entry: Recorded, msg: Any) -> Explained:
    found = _violation(msg)
    verdict = found.action.name.lower()
    return Explained(time_ns(msg.header.stamp), msg.session_id, msg.seq, verdict, (found,))


def _tell_cut(bag: Bag) -> None:
    if bag.broken:
        print(f'guard explain: {bag.broken}', file=sys.stderr)


def _violation(msg: Any) -> Violation:
    return Violation(
        rule=msg.rule, action=Action(msg.action), message=msg.message, joint=msg.joint,
        sample=msg.sample, value=msg.value, limit=msg.limit, unit=msg.unit,
        session_id=msg.session_id, seq=msg.seq,
    )


def _journal(path: Path) -> Iterator[JournalStep]:
    try:
        yield from read_journal(path)
    except NoLogError:
        raise BagError(f'{path}: is neither a bag (.mcap, or a folder with one) nor an audit log '
                       f'(a folder with {file_name(0)})') from None


def _recorded_log(path: Path) -> Iterator[Explained]:
    for step in _journal(path):
        verdicts = step.outcome.verdicts
        for session_id, seq, verdict in verdicts:
            named = tuple(v for v in step.outcome.violations
                          if (v.session_id, v.seq) == (session_id, seq))
            yield Explained(step.now_ros_ns, session_id, seq, verdict, named)
        others = tuple(v for v in step.outcome.violations
                       if (v.session_id, v.seq) not in {(s, n) for s, n, _ in verdicts})
        if others:
            yield Explained(step.now_ros_ns, '', 0, step.outcome.state.name, others)
