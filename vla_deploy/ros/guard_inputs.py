# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What arrives at the guard between two steps, gathered into the inputs of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState

from vla_deploy.core.chunk import Chunk
from vla_deploy.core.guard_io import Inputs
from vla_deploy.core.guard_io import JointState as CoreJointState
from vla_deploy.ros.chunk_messages import message_to_chunk
from vla_deploy.ros.conversions import time_ns
from vla_deploy_msgs.msg import ActionChunk


def message_to_joint_state(msg: JointState) -> CoreJointState:
    """Return the guard's view of a joint state; it judges names and sizes itself."""
    velocity = np.asarray(msg.velocity, dtype=np.float64)
    return CoreJointState(
        stamp_ns=time_ns(msg.header.stamp),
        names=tuple(msg.name),
        position=np.asarray(msg.position, dtype=np.float64),
        velocity=velocity if velocity.size else None,
    )


class GuardInputs:
    """Levels stay until they change; chunks and joint states are taken by one step."""

    def __init__(self, joint_names: Sequence[str] = ()) -> None:
        """joint_names: those under guard."""
        self._names = frozenset(joint_names)
        self.last_transport_s = -1.0
        self.last_seq = 0
        self._levels: dict[str, Any] = {}
        self._chunks: tuple[Chunk, ...] = ()
        self._joint_state: CoreJointState | None = None

    @property
    def has_joint_state(self) -> bool:
        """Whether a joint state waits for the next step."""
        return self._joint_state is not None

    def add_joint_state(self, msg: JointState) -> None:
        """Keep the newest measurement; one that lacks joints does not take the place of another,
        as where a gripper's driver speaks on the same topic."""
        if self._joint_state is None or self._names <= set(msg.name):
            self._joint_state = message_to_joint_state(msg)

    def add_chunk(self, msg: ActionChunk, now_ns: int) -> None:
        """Keep a chunk beside those that came since the last step."""
        self.last_transport_s = (now_ns - time_ns(msg.sent_stamp)) * 1e-9
        self.last_seq = msg.seq
        self._chunks += (message_to_chunk(msg),)

    def set(self, **levels: Any) -> None:
        """Set fields of the inputs, which stay so."""
        self._levels.update(levels)

    def take(self, **once: Any) -> Inputs:
        """Return the inputs of a step, with fields that are so in this step only."""
        arrived = {'chunks': self._chunks, 'joint_state': self._joint_state}
        inputs = Inputs(**{**arrived, **self._levels, **once})
        self._chunks, self._joint_state = (), None
        return inputs
