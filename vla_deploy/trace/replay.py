# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a bag says that a policy saw, and how far what it computes again is from what it computed.

The policy and the guard themselves are not here: they are the ones that serve.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.audit_file import AuditError, verify_log
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
from vla_deploy.trace.bag import Bag, BagError, Recorded
from vla_deploy.trace.episodes import CHUNK, GUARD_STATUS, RECORDING

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
# Images that are kept while their chunk is computed: 2 s of a camera at 30 Hz.
_IMAGES_KEPT = 64
ENSEMBLING = 'ensembling'
ChunkKey = tuple[str, int]  # session_id, seq


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

    actions: in robot units; None where what was sent is not what one inference computed
    (ensembling). raw: in model space; None where the two have another shape.
    """

    session_id: str
    seq: int
    actions: float | None
    raw: float | None
    recorded_s: float
    replayed_s: float

    @property
    def max_abs(self) -> float:
        """The one of the two that counts: robot units where there are any."""
        known = self.actions if self.actions is not None else self.raw
        return float('inf') if known is None else known


def seen_chunks(bag: Bag) -> Iterator[SeenChunk]:
    """Yield each chunk of a bag with what the policy saw, in order of their recording."""
    images: dict[tuple[str, int], Recorded] = {}
    order: deque[tuple[str, int]] = deque()
    waiting: list[Any] = []
    for recorded in bag.messages({CHUNK, *IMAGE_TYPES}):
        if recorded.type_name == CHUNK:
            message = bag.decode(recorded)
            if message.steps:  # without samples it only says that the session ends
                waiting.append(message)
        else:
            key = (recorded.topic, _stamp_ns(bag.decode(recorded).header.stamp))
            images[key] = recorded
            order.append(key)
            if len(order) > _IMAGES_KEPT:
                del images[order.popleft()]
        # A chunk may stand before its image where both came at the same time.
        while waiting and (len(waiting) > 2 or not _seen(bag, waiting[0], images).missing):
            yield _seen(bag, waiting.pop(0), images)
    for message in waiting:
        yield _seen(bag, message, images)


def _seen(bag: Bag, message: Any, images: Mapping[tuple[str, int], Recorded]) -> SeenChunk:
    topics = json.loads(bag.metadata.get(RECORDING, {}).get('topics', '{}'))
    found, missing = {}, []
    for camera, stamp in zip(message.image_names, message.image_stamps, strict=True):
        topic = topics.get(f'image/{camera}', f'/image/{camera}')
        image = images.get((topic, _stamp_ns(stamp)))
        if image is None:
            missing.append(topic)
        else:
            found[camera] = image
    return SeenChunk(message, found, ', '.join(missing))


def compare(
    seen: SeenChunk,
    raw: NDArray[np.float32],
    actions: NDArray[np.float64],
    replayed_s: float,
) -> ChunkDifference:
    """Hold what was computed again, raw [steps, dims] and actions [steps, joints], against what
    was recorded."""
    sent = None
    if seen.message.strategy != ENSEMBLING:
        sent = _max_abs(actions[: len(seen.actions)], seen.actions)
    return ChunkDifference(
        *seen.key, sent, _max_abs(raw, seen.raw), seen.latency_s, replayed_s
    )


def _max_abs(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    if a.shape != b.shape:
        return None
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    distance = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0))
    return distance if np.isfinite(distance) else float('inf')


def replay_guard(
    log: Path, chunks: Mapping[ChunkKey, NDArray[np.float64]]
) -> Iterator[tuple[JournalStep, Outputs, str]]:
    """Take the guard of a journal through its steps again, with these actions in place of those
    that the chunks had; yield each step with what differs, as one line. Raises AuditError."""
    steps = replay_steps(core_of(read_genesis(log)), (
        _with_chunks(step, chunks) for step in read_journal(log)
    ))  # fmt: skip
    for step, outputs in steps:
        yield step, outputs, difference(step, outputs)


def _with_chunks(
    step: JournalStep, chunks: Mapping[ChunkKey, NDArray[np.float64]]
) -> JournalStep:
    arrived = tuple(
        replace(chunk, data=chunks[chunk.session_id, chunk.seq])
        if (chunk.session_id, chunk.seq) in chunks
        else chunk
        for chunk in step.inputs.chunks
    )
    return replace(step, inputs=replace(step.inputs, chunks=arrived)) if arrived else step


def journal_of(bag: Bag) -> Path:
    """Return the folder of the journal that the guard of a bag wrote; raises BagError.

    It is the log that holds the hash which the guard published.
    """
    head = ''
    for recorded in bag.messages({GUARD_STATUS}):
        head = bag.decode(recorded).audit_head or head
    parameters = next((v for n, v in bag.metadata.items() if n == 'parameters/guard'), {})
    folder = json.loads(parameters.get('log_folder', '""'))
    if not head or not folder:
        raise BagError(f'{bag.path}: its guard wrote no journal: --diff actions compares the rest')
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
