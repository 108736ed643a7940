# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""From the parts of an observation to the message of a chunk: what the worker thread does."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vla_deploy.pipeline import Observation, ObservationError, PolicyChunk
from vla_deploy.pipeline.assembly import Assembled
from vla_deploy.ros.conversions import ConversionError, image_to_rgb
from vla_deploy.ros.policy_messages import ChunkContext, chunk_to_message
from vla_deploy.ros.served_policy import ServedPolicy
from vla_deploy_msgs.msg import ActionChunk


@dataclass(frozen=True)
class Made:
    """A chunk, what it was computed from, and how long decoding and all of it took."""

    chunk: PolicyChunk
    assembled: Assembled
    decode_s: float
    inference_s: float


class ChunkMaker:
    """A policy behind messages. Used by one thread."""

    def __init__(self, served: ServedPolicy, noise_seed: int, chunk_valid_s: float) -> None:
        self._policy, self._contract = served.policy, served.contract
        self._seed = noise_seed
        self._valid_ns = round(chunk_valid_s * 1e9)

    @property
    def chunk_steps(self) -> int:
        """Return the number of samples of a chunk."""
        return self._contract.chunk_steps

    @property
    def control_mode(self) -> str:
        """Return what the actions command, as the contract says: position or velocity."""
        return self._contract.action.control_mode

    def make(self, assembled: Assembled, instruction: str, noise_seed: int | None = None) -> Made:
        """Decode and infer; raises ObservationError, which names the stream.

        `noise_seed`: None for the next one of the configured count, or one drawn anew.
        """
        begin_s = time.perf_counter()
        images = {}
        for camera, msg in assembled.images.items():
            try:
                images[camera] = image_to_rgb(msg)
            except ConversionError as error:
                raise ObservationError(f'image/{camera}: {error}') from error
        decode_s = time.perf_counter() - begin_s
        observation = Observation(images, assembled.state, instruction)
        seed = self._next_seed() if noise_seed is None else noise_seed
        chunk = self._policy.infer(observation, noise_seed=seed)
        return Made(chunk, assembled, decode_s, time.perf_counter() - begin_s)

    def message(
        self, made: Made, session_id: str, seq: int, begins_ns: int, now_ns: int
    ) -> ActionChunk:
        """Return the message of a chunk that is sent now, for motion that begins at begins_ns."""
        action, period_s = self._contract.action, self._contract.period_s
        assert period_s is not None
        context = ChunkContext(
            session_id=session_id,
            seq=seq,
            model_sha256=self._policy.model_sha256,
            stamp_ns=begins_ns + round(action.first_sample_offset_steps * period_s * 1e9),
            observation_stamp_ns=made.assembled.stamp_ns,
            sent_stamp_ns=now_ns,
            valid_until_ns=now_ns + self._valid_ns,
            period_s=period_s,
            inference_s=made.inference_s,
            decode_s=made.decode_s,
            anchor_position=made.assembled.state,
            joint_names=action.joints or (),
        )
        return chunk_to_message(made.chunk, self._contract, context)

    def _next_seed(self) -> int | None:
        if self._seed < 0:
            return None  # the policy draws one and says which
        self._seed += 1
        return self._seed - 1
