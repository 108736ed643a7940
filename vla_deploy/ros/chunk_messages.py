# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's view of an ActionChunk message. Imports nothing of the pipeline."""

from __future__ import annotations

import numpy as np

from vla_deploy.core.chunk import Chunk
from vla_deploy.ros.conversions import duration_s, time_ns
from vla_deploy_msgs.msg import ActionChunk


def message_to_chunk(msg: ActionChunk) -> Chunk:
    """Return the guard's view of a chunk; sizes that disagree are left for the guard to refuse."""
    data = np.asarray(msg.data, dtype=np.float64)
    columns = len(msg.joint_names)
    if columns and data.size == msg.steps * columns:
        data = data.reshape(msg.steps, columns)
    return Chunk(
        session_id=msg.session_id,
        seq=msg.seq,
        stamp_ns=time_ns(msg.header.stamp),
        observation_stamp_ns=time_ns(msg.observation_stamp),
        valid_until_ns=time_ns(msg.valid_until),
        period_s=duration_s(msg.period),
        control_mode=msg.control_mode,
        joint_names=tuple(msg.joint_names),
        data=data,
        anchor_position=np.asarray(msg.anchor_position, dtype=np.float64),
        schema_version=msg.schema_version,
        model_sha256=msg.model_sha256,
        ends_session=msg.ends_session,
    )
