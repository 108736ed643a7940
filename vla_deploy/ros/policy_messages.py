# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the policy returned, as messages: the ActionChunk, and a plain array for tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from std_msgs.msg import Float32MultiArray, MultiArrayDimension

from vla_deploy.core.contract import Contract
from vla_deploy.pipeline import Guidance, PolicyChunk
from vla_deploy.pipeline.strategy import Placed
from vla_deploy.ros.conversions import duration_msg, time_msg
from vla_deploy_msgs.msg import ActionChunk


@dataclass(frozen=True)
class ChunkContext:
    """What a chunk's message says beside the policy's own output; times are ROS time."""

    placed: Placed
    strategy: str
    session_id: str
    seq: int
    model_sha256: str
    adaptive_error: float
    observation_stamp_ns: int
    image_stamps: Mapping[str, Time]
    guidance: Guidance | None
    sent_stamp_ns: int
    valid_until_ns: int
    period_s: float
    inference_s: float
    decode_s: float
    anchor_position: np.ndarray  # float64 [joints]
    joint_names: tuple[str, ...]


def chunk_to_message(chunk: PolicyChunk, contract: Contract, context: ChunkContext) -> ActionChunk:
    """Return the message of a chunk of the policy, as the strategy placed it."""
    placed = context.placed
    msg = ActionChunk()
    msg.header.stamp = time_msg(placed.stamp_ns)
    msg.schema_version = ActionChunk.SCHEMA_VERSION
    msg.session_id = context.session_id
    msg.seq = context.seq
    msg.model_sha256 = context.model_sha256
    msg.instruction = chunk.instruction
    msg.observation_stamp = time_msg(context.observation_stamp_ns)
    msg.image_names = list(context.image_stamps)
    msg.image_stamps = list(context.image_stamps.values())
    msg.sent_stamp = time_msg(context.sent_stamp_ns)
    msg.anchor_position = context.anchor_position.tolist()
    msg.noise_seed = chunk.noise_seed or 0
    msg.inference_time = duration_msg(context.inference_s)
    msg.period = duration_msg(context.period_s)
    msg.valid_until = time_msg(context.valid_until_ns)
    msg.control_mode = {
        'position': ActionChunk.CONTROL_MODE_POSITION,
        'velocity': ActionChunk.CONTROL_MODE_VELOCITY,
    }[contract.action.control_mode]
    msg.joint_names = list(context.joint_names)
    msg.steps = placed.actions.shape[0]
    msg.data = placed.actions.ravel().tolist()
    msg.raw_steps, msg.raw_dims = chunk.raw.shape
    msg.raw = chunk.raw.ravel().tolist()
    msg.strategy = context.strategy
    msg.delay_steps, msg.guided_steps = placed.delay_steps, placed.guided_steps
    if context.guidance is not None:
        msg.guidance_delay_steps = context.guidance.delay_steps
        msg.guidance = context.guidance.previous.ravel().tolist()
    msg.difference, msg.skipped = placed.difference, placed.skipped
    msg.denoise_steps = chunk.denoise_steps
    msg.adaptive_error = context.adaptive_error
    msg.prompt_truncated = chunk.prompt_truncated
    msg.state_lost = chunk.state_lost
    msg.timings.decode_s = context.decode_s
    msg.timings.preprocess_s = chunk.timings.preprocess_s
    msg.timings.prefix_s = chunk.timings.prefix_s
    msg.timings.sample_s = chunk.timings.sample_s
    msg.timings.postprocess_s = chunk.timings.postprocess_s
    return msg


def lacking(chunk: PolicyChunk) -> str:
    """Return what the policy was not given of its prompt, as one line; empty if nothing."""
    if chunk.state_lost:
        return 'prompt: the state that stands in the text was lost; give a shorter instruction'
    if chunk.prompt_truncated:
        return 'prompt: the text lost its end; give a shorter instruction'
    return ''


def end_message(session_id: str, seq: int, now_ns: int) -> ActionChunk:
    """Return the message that ends a session: nothing follows, the guard brakes and holds."""
    msg = ActionChunk(
        schema_version=ActionChunk.SCHEMA_VERSION,
        session_id=session_id,
        seq=seq,
        ends_session=True,
        sent_stamp=time_msg(now_ns),
    )
    msg.header.stamp = time_msg(now_ns)
    return msg


def flat_message(msg: ActionChunk) -> Float32MultiArray:
    """Return the actions of a chunk as a plain array, layout filled, for tools."""
    flat = Float32MultiArray()
    columns = len(msg.joint_names)
    flat.layout.dim = [
        MultiArrayDimension(label='steps', size=msg.steps, stride=msg.steps * columns),
        MultiArrayDimension(label='joints', size=columns, stride=columns),
    ]
    flat.data = np.asarray(msg.data, dtype=np.float32).tolist()
    return flat
