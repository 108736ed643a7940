# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which chunks of a run are not in its bag, so that no replay can speak of them.

Inference numbers the chunks of a session without a gap, the recorder counts what it did not get,
and the guard's journal holds what the guard took: each may know of a chunk that the bag lacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from vla_deploy.core.journal import JournalStep
from vla_deploy.trace.bag import Bag
from vla_deploy.trace.episodes import CHUNK, RECORDING

RECORDER_STATUS = 'vla_deploy_msgs/msg/RecorderStatus'
_NAMED = 100  # chunks missing in a row that are named one by one


@dataclass
class HeldChunks:
    """The numbers of the chunks that a bag holds by session, those that only end one among them.

    dropped, lost: how many more its recorder counted.
    """

    numbers: dict[str, set[int]] = field(default_factory=dict)
    dropped: int = 0
    lost: int = 0

    def gaps(self) -> Iterator[str]:
        """Yield what is missing by what the bag itself says, a line for each chunk.

        What comes before the first of a session is no gap: the recorder may have begun later.
        """
        for session_id, numbers in self.numbers.items():
            for before, after in pairwise(sorted(numbers)):
                yield from _lines(session_id, before + 1, after - 1)
        if self.dropped or self.lost:
            yield (f'the recorder counted {self.dropped} chunks that it dropped and {self.lost} '
                   'that were lost on the way to it')  # fmt: skip

    def gaps_of(self, step: JournalStep) -> Iterator[str]:
        """Yield the chunks that the guard took in a step, of a session of the bag, but that are
        neither in it nor among its gaps."""
        for chunk in step.inputs.chunks:
            numbers = self.numbers.get(chunk.session_id)
            if numbers is None or chunk.ends_session or chunk.seq in numbers:
                continue
            if not min(numbers) < chunk.seq < max(numbers):
                yield (f'chunk {chunk.seq} of session {chunk.session_id}: the guard took it, but '
                       'it is not in the bag')  # fmt: skip


def _lines(session_id: str, first: int, last: int) -> Iterator[str]:
    if last - first >= _NAMED:
        yield f'chunks {first} to {last} of session {session_id}: are not in the bag'
        return
    for seq in range(first, last + 1):
        yield f'chunk {seq} of session {session_id}: is not in the bag'


def held_chunks(bag: Bag) -> HeldChunks:
    """Read which chunks a bag holds, and what its recorder counted at last."""
    held, status = HeldChunks(), None
    for recorded in bag.messages({CHUNK, RECORDER_STATUS}):
        message = bag.decode(recorded)
        if recorded.type_name == CHUNK:
            held.numbers.setdefault(message.session_id, set()).add(message.seq)
        else:
            status = message
    if status is not None:
        # Where every chunk was lost, no channel of the bag tells what their topic is called.
        names = json.loads(bag.metadata.get(RECORDING, {}).get('topics', '{}'))
        topics = {topic.name for topic in bag.topics.values() if topic.type_name == CHUNK}
        topics.add(names.get('action_chunk', '/action_chunk'))
        counted = zip(status.topics, status.topic_dropped, status.topic_lost, strict=True)
        for name, dropped, lost in counted:
            if name in topics:
                held.dropped += int(dropped)
                held.lost += int(lost)
    return held
