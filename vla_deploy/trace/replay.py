# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a bag says that a policy saw, and how far what it computes again is from what it computed.

The policy and the guard themselves are not here: they are the ones that serve.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.audit_file import AuditError, verify_log
from vla_deploy.core.contract import Contract
from vla_deploy.core.guard_io import Outputs
from vla_deploy.core.journal import (
    JournalStep,
    core_of,
    difference,
    read_genesis,
    read_journal,
)
from vla_deploy.core.journal import (
    replay as replay_steps,
)
from vla_deploy.core.verify import CONTROL_MODES
from vla_deploy.trace.bag import Bag, BagError, Recorded
from vla_deploy.trace.episodes import CHUNK, GUARD_STATUS, RECORDING
from vla_deploy.trace.record_files import camera_topics

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
ENSEMBLING = 'ensembling'
FULL = 'full'  # images are kept whole
ChunkKey = tuple[str, int]  # session_id, seq
_ImageKey = tuple[str, int]  # topic, stamp [ns]
_WAITING = 2  # chunks that are held back until their images come


@dataclass(frozen=True, eq=False)
class SeenChunk:
    """A chunk with the images that it was computed from; `missing` says which are not there."""

    message: Any  # vla_deploy_msgs/ActionChunk, by field names
    images: Mapping[str, Recorded]
    missing: str = ''

    @property
    def key(self) -> ChunkKey:
        """Session and number."""
        return self.message.session_id, self.message.seq

    @property
    def state(self) -> NDArray[np.float64]:
        """The joint positions that the policy saw [joints]."""
        return np.asarray(self.message.anchor_position, np.float64)

    @property
    def raw(self) -> NDArray[np.float32]:
        """What the policy computed, in model space [steps, dims]."""
        return self.message.raw.reshape(self.message.raw_steps, self.message.raw_dims)

    @property
    def actions(self) -> NDArray[np.float64]:
        """What was sent, in robot units [steps, joints]."""
        return self.message.data.reshape(self.message.steps, len(self.message.joint_names))

    @property
    def period_ns(self) -> int:
        """Time between two samples."""
        return _stamp_ns(self.message.period)

    def sent_part(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what of a chunk computed again stands for what was sent: all of it, or as many
        steps where the recorded one was cut as well, as the strategy `synchronous` does."""
        was_cut = self.message.steps < self.message.raw_steps
        return actions[: self.message.steps] if was_cut else actions

    @property
    def guidance(self) -> NDArray[np.float32] | None:
        """What the chunk was drawn toward [rows, dims], or None."""
        rows = self.message.guided_steps
        return self.message.guidance.reshape(rows, -1) if rows else None

    @property
    def latency_s(self) -> float:
        """How long it took, decoding included."""
        spent = self.message.inference_time
        return float(spent.sec + spent.nanosec * 1e-9)


@dataclass(frozen=True)
class ChunkDifference:
    """How far a chunk that was computed again is from the recorded one, at most over its elements.

    actions: in robot units; infinite where shapes or contracts differ, None where what was sent is
    not what one inference computed (ensembling). raw: in model space; None where the two have
    another shape. contract: in what the plans themselves differ, as other joints; empty: nothing.
    """

    session_id: str
    seq: int
    actions: float | None
    raw: float | None
    recorded_s: float
    replayed_s: float
    contract: str = ''

    @property
    def max_abs(self) -> float:
        """The one of the two that counts: robot units where there are any. Infinite where the same
        numbers would mean another motion."""
        if self.contract:
            return float('inf')
        known = self.actions if self.actions is not None else self.raw
        return float('inf') if known is None else known


def seen_chunks(bag: Bag) -> Iterator[SeenChunk]:
    """Yield each chunk of a bag with what the policy saw, in order of their recording.

    The bag is read twice, so that no image is in memory longer than a chunk needs it.
    """
    planned = [message for message in map(bag.decode, bag.messages({CHUNK})) if message.steps]
    topics = json.loads(bag.metadata.get(RECORDING, {}).get('topics', '{}'))
    needed = Counter(key for message in planned for key in _image_keys(message, topics))
    images: dict[_ImageKey, Recorded] = {}
    waiting: deque[Any] = deque()
    for recorded in bag.messages({CHUNK, *IMAGE_TYPES}):
        message = bag.decode(recorded)
        if recorded.type_name != CHUNK:
            key = (recorded.topic, _stamp_ns(message.header.stamp))
            if needed[key]:
                images[key] = recorded
        elif message.steps:  # without samples it only says that the session ends
            waiting.append(message)
        while waiting:
            seen = _seen(waiting[0], topics, images)
            if seen.missing and len(waiting) <= _WAITING:
                break  # a chunk may stand before its image where both came at the same time
            yield seen
            _forget_images(waiting.popleft(), topics, needed, images)
    for message in waiting:
        yield _seen(message, topics, images)


def _image_keys(message: Any, topics: Mapping[str, str]) -> Iterator[_ImageKey]:
    """Yield where the images of a chunk may be found: compressed ones have a topic of their own."""
    for camera, stamp in zip(message.image_names, message.image_stamps, strict=True):
        for name in camera_topics(camera):
            yield topics.get(name, f'/{name}'), _stamp_ns(stamp)


def _seen(
    message: Any, topics: Mapping[str, str], images: Mapping[_ImageKey, Recorded]
) -> SeenChunk:
    found, missing = {}, []
    keys = _image_keys(message, topics)
    for camera, raw, compressed in zip(message.image_names, keys, keys, strict=True):
        image = images.get(raw) or images.get(compressed)
        if image is None:
            missing.append(raw[0])
        else:
            found[camera] = image
    return SeenChunk(message, found, ', '.join(missing))


def _forget_images(
    message: Any, topics: Mapping[str, str], needed: Counter[_ImageKey],
    images: dict[_ImageKey, Recorded],
) -> None:
    for key in _image_keys(message, topics):
        needed[key] -= 1
        if not needed[key]:
            images.pop(key, None)


def kept_images(bag: Bag) -> str:
    """Return how a bag keeps images: full, hashed or none. The bag must have been read."""
    return bag.metadata.get(RECORDING, {}).get('images', FULL)


def compare(
    seen: SeenChunk,
    raw: NDArray[np.float32],
    actions: NDArray[np.float64],
    replayed_s: float,
    contract: Contract,
) -> ChunkDifference:
    """Hold what was computed again, raw [steps, dims] and actions [steps, joints], under its
    contract against what was recorded."""
    sent, differs = None, contract_difference(seen, contract)
    if seen.message.strategy != ENSEMBLING:
        sent = _max_abs(seen.sent_part(actions), seen.actions)
        if sent is None or differs:
            sent = float('inf')
    return ChunkDifference(
        *seen.key, sent, _max_abs(raw, seen.raw), seen.latency_s, replayed_s, differs
    )


def contract_difference(seen: SeenChunk, contract: Contract) -> str:
    """Return in what a plan under this contract is another than the recorded one, whatever its
    numbers: joints, their order, the period, what is commanded. Empty: in nothing."""
    joints, recorded = contract.action.joints or (), tuple(seen.message.joint_names)
    if joints != recorded:
        return f'its joints are {", ".join(joints)}, those recorded {", ".join(recorded)}'
    if period_ns_of(contract) != seen.period_ns:
        return f'its period is {contract.period_s!r} s, the one recorded {seen.period_ns / 1e9!r} s'
    if CONTROL_MODES[contract.action.control_mode] != seen.message.control_mode:
        return f'its control mode is {contract.action.control_mode}, another one was recorded'
    return ''


def period_ns_of(contract: Contract) -> int:
    """Return the time between two samples, as a message tells it."""
    return round((contract.period_s or 0.0) * 1e9)


def _max_abs(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    if a.shape != b.shape:
        return None
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    distance = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0))
    return distance if np.isfinite(distance) else float('inf')


@dataclass(frozen=True, eq=False)
class Plan:
    """What the guard gets of a chunk computed again, in place of what the recorded one had."""

    data: NDArray[np.float64]  # [steps, joints]
    joint_names: tuple[str, ...]
    period_s: float
    control_mode: int


def plan_of(seen: SeenChunk, actions: NDArray[np.float64], contract: Contract) -> Plan:
    """Return the plan of actions [steps, joints] under this contract. The period is the message's
    own number, so that one that does not differ is the same to the bit."""
    return Plan(seen.sent_part(actions), contract.action.joints or (), period_ns_of(contract) / 1e9,
                CONTROL_MODES[contract.action.control_mode])  # fmt: skip


def replay_guard(
    log: Path, chunks: Mapping[ChunkKey, Plan]
) -> Iterator[tuple[JournalStep, Outputs, str]]:
    """Take the guard of a journal through its steps again, with these plans in place of those
    that the chunks had; yield each step with what differs, as one line. Raises AuditError."""
    steps = replay_steps(core_of(read_genesis(log)), (
        _with_chunks(step, chunks) for step in read_journal(log)
    ))  # fmt: skip
    for step, outputs in steps:
        yield step, outputs, difference(step, outputs)


def _with_chunks(step: JournalStep, chunks: Mapping[ChunkKey, Plan]) -> JournalStep:
    arrived = tuple(
        replace(chunk, **vars(chunks[chunk.session_id, chunk.seq]))
        if (chunk.session_id, chunk.seq) in chunks
        else chunk
        for chunk in step.inputs.chunks
    )
    return replace(step, inputs=replace(step.inputs, chunks=arrived)) if arrived else step


def journal_of(bag: Bag, moved_to: Path | None = None) -> Path:
    """Return the folder of the journal that the guard of a bag wrote; raises BagError.

    It is the log that holds the hash which the guard published. `moved_to`: where it lies now, if
    not where it was written; raises AuditError where that is another one.
    """
    head = ''
    for recorded in bag.messages({GUARD_STATUS}):
        head = bag.decode(recorded).audit_head or head
    parameters = next((v for n, v in bag.metadata.items() if n == 'parameters/guard'), {})
    folder = json.loads(parameters.get('log_folder', '""'))
    if not head or not (folder or moved_to):
        raise BagError(f'{bag.path}: its guard wrote no journal: --diff actions compares the rest')
    if moved_to is not None:
        verify_log(moved_to, head)
        return moved_to
    for log in sorted(Path(folder).expanduser().glob('*/'), reverse=True):
        try:
            verify_log(log, head)
        except AuditError:
            continue  # another guard's, or cut before
        return log
    raise BagError(f'{bag.path}: no journal below {folder} holds {head}: name it by --journal')


def recorded_parameters(bag: Bag, node: str) -> dict[str, Any]:
    """Return the parameters of a node; raises BagError. The bag must have been read."""
    record = bag.metadata.get(f'parameters/{node}')
    if record is None:
        raise BagError(f'{bag.path}: does not hold the parameters of {node}')
    return {name: json.loads(value) for name, value in record.items()}


def _stamp_ns(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
