# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes of a bag: one for each session, that is for each instruction that was followed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vla_deploy.trace.bag import Bag, BagError, bag_files, closing_records
from vla_deploy.trace.bag_writer import Topic
from vla_deploy.trace.cdr import CdrError, Decoder
from vla_deploy.trace.definitions import DefinitionError, split_definition

RECORDING = 'vla_deploy.recording'  # record of texts at the beginning of a bag: robot and more
EPISODES = 'vla_deploy.episodes'  # record of texts at its end: what this module found
CHUNK = 'vla_deploy_msgs/msg/ActionChunk'
POLICY_STATUS = 'vla_deploy_msgs/msg/PolicyStatus'
GUARD_STATUS = 'vla_deploy_msgs/msg/GuardStatus'
VIOLATION = 'vla_deploy_msgs/msg/Violation'
GOAL_STATUS = 'action_msgs/msg/GoalStatusArray'
TYPES = frozenset((CHUNK, POLICY_STATUS, GUARD_STATUS, VIOLATION, GOAL_STATUS))

SUCCESS, FAILED, UNKNOWN = 'success', 'failed', 'unknown'
_SUCCEEDED, _ABORTED = 4, 6  # action_msgs/GoalStatus
_STOPPED = {5: 'ESTOP_LATCHED', 6: 'FAULT'}  # GuardStatus
_REFUSED = 1  # Violation
# A stop of the guard ends a session within milliseconds, and the end may be heard first.
_LATE_NS = 200_000_000
# What a message of another version, or a definition that is none, ends with.
_NOT_OURS = (CdrError, DefinitionError, AttributeError, TypeError, ValueError, RecursionError)
_NO_RECORD = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
_TEXTS = ('session_id', 'task', 'model_sha256', 'stopped', 'result')
_SURROGATE = re.compile('[\ud800-\udfff]')  # no UTF-8
_LARGEST = 2**63  # whole numbers below it go into the index


@dataclass
class Episode:
    """One instruction that was followed. Times are those of the bag; `stopped` is the state in
    which the guard ended it, if it did; `result` comes from the action's end."""

    session_id: str
    task: str
    model_sha256: str
    begin_ns: int
    end_ns: int
    chunks: int = 0
    refused: int = 0
    violations: int = 0
    stopped: str = ''
    result: str = UNKNOWN
    latency_ms: list[float] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last that was heard of it."""
        return (self.end_ns - self.begin_ns) * 1e-9


class EpisodeCollector:
    """Finds the episodes in messages, one after the other as they were recorded."""

    def __init__(self) -> None:
        self._episodes: dict[str, Episode] = {}
        self._refused: set[tuple[str, int]] = set()
        # The one that goes on: what stops the guard after its end did not stop it.
        self._open: Episode | None = None
        self._last: Episode | None = None
        self._last_until_ns = 0  # what is heard of the guard until then may be from before its end
        self._ended: set[str] = set()
        self._results: dict[str, str] = {}  # id of a goal, which is that of its session

    def add(self, type_name: str, log_ns: int, message: Any) -> None:
        """Take a message of one of TYPES."""
        if type_name == CHUNK:
            self._on_chunk(log_ns, message)
        elif type_name == POLICY_STATUS:
            self._on_policy(log_ns, message)
        elif type_name == VIOLATION:
            self._on_violation(message)
        elif type_name == GUARD_STATUS:
            if message.state in _STOPPED:
                self._on_stopped(log_ns, _STOPPED[message.state])
        elif type_name == GOAL_STATUS:
            self._on_goals(message)

    def episodes(self) -> list[Episode]:
        """Return the episodes in order of their begin."""
        return [
            replace(episode, result=self._results.get(session_id, UNKNOWN))
            for session_id, episode in self._episodes.items()
        ]

    def _heard(self, session_id: str, task: str, model_sha256: str, log_ns: int) -> Episode:
        episode = self._episodes.setdefault(
            session_id, Episode(session_id, task, model_sha256, log_ns, log_ns)
        )
        episode.end_ns = max(episode.end_ns, log_ns)
        return episode

    def _on_stopped(self, log_ns: int, state: str) -> None:
        if self._open is not None:
            self._open.stopped = state
        elif self._last is not None and log_ns <= self._last_until_ns:
            self._last.stopped = state

    def _on_policy(self, log_ns: int, status: Any) -> None:
        episode = None
        if status.session_id:
            episode = self._heard(
                status.session_id, status.instruction, status.model_sha256, log_ns
            )
        self._follow(None if status.session_id in self._ended else episode, log_ns)

    def _follow(self, episode: Episode | None, log_ns: int) -> None:
        """Note which episode goes on, if one does."""
        if self._open is not None and self._open is not episode:
            self._last, self._last_until_ns = self._open, log_ns + _LATE_NS
        self._open = episode

    def _on_chunk(self, log_ns: int, chunk: Any) -> None:
        episode = self._heard(chunk.session_id, chunk.instruction, chunk.model_sha256, log_ns)
        if not chunk.steps:  # it only says that the session ends
            self._ended.add(chunk.session_id)
            if self._open is episode:
                self._follow(None, log_ns)
            return
        self._follow(episode, log_ns)
        episode.chunks += 1
        spent = chunk.inference_time
        episode.latency_ms.append(round(spent.sec * 1e3 + spent.nanosec * 1e-6, 3))

    def _on_violation(self, violation: Any) -> None:
        episode = self._episodes.get(violation.session_id)
        if episode is None:
            return
        episode.violations += 1 + violation.suppressed
        chunk = (violation.session_id, violation.seq)
        if violation.action == _REFUSED and chunk not in self._refused:
            self._refused.add(chunk)
            episode.refused += 1

    def _on_goals(self, goals: Any) -> None:
        """Note how goals ended."""
        for goal in goals.status_list:
            if goal.status in (_SUCCEEDED, _ABORTED):
                session_id = bytes(bytearray(goal.goal_info.goal_id.uuid)).hex()
                self._results[session_id] = SUCCESS if goal.status == _SUCCEEDED else FAILED


class EpisodeWatch:
    """Collects episodes while they are recorded.

    What cannot be read, as a message of another version, is in the bag all the same; it is counted
    here, and told with the episodes.
    """

    def __init__(self) -> None:
        self._collector = EpisodeCollector()
        self._decoders: dict[str, Decoder] = {}
        self._unreadable: Counter[str] = Counter()

    def see(self, topic: Topic, log_ns: int, data: bytes) -> None:
        """Take a message that was written."""
        name = topic.type_name
        if name not in TYPES:
            return
        try:
            if name not in self._decoders:
                self._decoders[name] = Decoder(name, split_definition(name, topic.definition))
            self._collector.add(name, log_ns, self._decoders[name](data))
        except _NOT_OURS:
            self._unreadable[topic.name] += 1

    def closing(self) -> dict[str, dict[str, str]]:
        """Return the record that ends the bag."""
        episodes = json.dumps([asdict(e) for e in self._collector.episodes()], ensure_ascii=True)
        return {EPISODES: {'episodes': episodes, 'unreadable': json.dumps(self._unreadable)}}


@dataclass
class Contents:
    """What a bag holds: its episodes and the robot; `broken`: where it was cut, if it was, and what
    cannot be read."""

    robot: str
    episodes: list[Episode]
    broken: str = ''


def read_contents(bag: Bag) -> Contents:
    """Return the episodes of a bag: from the record at its end, or else by reading all of it."""
    path = bag_files(bag.path)[-1]
    records = closing_records(path, (EPISODES, RECORDING))
    try:
        episodes, unreadable = _from_record(records[EPISODES])
        robot = records[RECORDING].get('robot', '')
    except _NO_RECORD:  # not closed, of another recorder, or damaged
        watch = EpisodeWatch()
        for recorded in bag.messages(TYPES):
            watch.see(bag.topics[recorded.topic], recorded.log_ns, recorded.data)
        robot = bag.metadata.get(RECORDING, {}).get('robot', '')
        try:
            episodes, unreadable = _from_record(watch.closing()[EPISODES])
        except _NO_RECORD as error:
            raise BagError(f'{path}: its episodes cannot be read: {error}') from error
    problems = [bag.broken] if bag.broken else []
    problems += [f'{path}: {count} messages of {topic} cannot be read'
                 for topic, count in unreadable.items()]  # fmt: skip
    return Contents(robot, episodes, '; '.join(problems))


def _from_record(record: Mapping[str, str]) -> tuple[list[Episode], dict[str, int]]:
    """Return the episodes and the counts of what could not be read; raises one of _NO_RECORD."""
    episodes = [Episode(**values) for values in json.loads(record['episodes'])]
    for episode in episodes:
        for name, value in asdict(episode).items():
            _check_value(name, value)
    return episodes, dict(json.loads(record.get('unreadable', '{}')))


def _check_value(name: str, value: Any) -> None:
    """Raise ValueError for what no index takes."""
    if name == 'latency_ms':
        good = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    elif name in _TEXTS:
        good = isinstance(value, str) and not _SURROGATE.search(value)
    else:
        good = type(value) is int and -_LARGEST <= value < _LARGEST
    if not good:
        raise ValueError(f'{name} is {value!r}')
