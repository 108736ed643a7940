# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""From the parts of an observation to the message of a chunk: what the worker thread does."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from vla_deploy.pipeline import Guidance, Observation, ObservationError, PolicyChunk
from vla_deploy.pipeline.assembly import Assembled
from vla_deploy.pipeline.sampler import Haste
from vla_deploy.pipeline.strategy import Placed
from vla_deploy.ros.conversions import ConversionError
from vla_deploy.ros.images import image_to_rgb
from vla_deploy.ros.policy_messages import ChunkContext, chunk_to_message
from vla_deploy.ros.served_policy import ServedPolicy
from vla_deploy_msgs.msg import ActionChunk


@dataclass(frozen=True)
class Made:
    """A chunk, what it was computed from, and how long decoding and all of it took."""

    chunk: PolicyChunk
    assembled: Assembled
    guidance: Guidance | None
    decode_s: float
    inference_s: float


class ChunkMaker:
    """A policy behind messages. Used by one thread."""

    def __init__(
        self,
        served: ServedPolicy,
        strategy: str,
        noise_seed: int,
        chunk_valid_s: float,
        adaptive_tolerance: float,
        depth_max_m: float,
    ) -> None:
        """Take the name of the strategy, for the messages, and parameters of the same names."""
        self.contract = served.contract
        self._policy, self._adaptive_error = served.policy, served.adaptive_error
        self._effector = served.effector
        self._strategy = strategy
        self._seed = noise_seed
        self._valid_ns = round(chunk_valid_s * 1e9)
        self._adaptive_tolerance = adaptive_tolerance
        self._depth_max_m = depth_max_m

    def make(
        self,
        assembled: Assembled,
        instruction: str,
        noise_seed: int | None = None,
        guidance: Guidance | None = None,
        deadline_s: float | None = None,
        injected_latency_s: float = 0.0,
    ) -> Made:
        """Decode and infer; raises ObservationError, which names the stream, and DeadlineError.

        `noise_seed`: None for the next one of the configured count, or one drawn anew.
        `deadline_s`: time of `time.perf_counter` at which the chunk must be there.
        """
        begin_s = time.perf_counter()
        images = {}
        for camera, msg in assembled.images.items():
            try:
                images[camera] = image_to_rgb(msg, self._depth_max_m)
            except ConversionError as error:
                raise ObservationError(f'image/{camera}: {error}') from error
        decode_s = time.perf_counter() - begin_s
        observation = Observation(images, assembled.state, instruction)
        seed = self._next_seed() if noise_seed is None else noise_seed
        haste = Haste(deadline_s, self._adaptive_tolerance, injected_latency_s)
        chunk = self._policy.infer(observation, noise_seed=seed, guidance=guidance, haste=haste)
        if self._effector is not None:
            positions = self._effector.to_joints(chunk.actions, assembled.state)
            chunk = replace(chunk, actions=positions)
        return Made(chunk, assembled, guidance, decode_s, time.perf_counter() - begin_s)

    def message(
        self, made: Made, placed: Placed, session_id: str, seq: int, now_ns: int
    ) -> ActionChunk:
        """Return the message of a chunk that is sent now."""
        period_s = self.contract.period_s
        assert period_s is not None
        context = ChunkContext(
            placed=placed,
            strategy=self._strategy,
            session_id=session_id,
            seq=seq,
            model_sha256=self._policy.model_sha256,
            adaptive_error=self._adaptive_error,
            observation_stamp_ns=made.assembled.stamp_ns,
            image_stamps={name: m.header.stamp for name, m in made.assembled.images.items()},
            guidance=made.guidance,
            sent_stamp_ns=now_ns,
            valid_until_ns=now_ns + self._valid_ns,
            period_s=period_s,
            inference_s=made.inference_s,
            decode_s=made.decode_s,
            anchor_position=made.assembled.state,
            joint_names=self.contract.action.joints or (),
        )
        return chunk_to_message(made.chunk, self.contract, context)

    def _next_seed(self) -> int | None:
        if self._seed < 0:
            return None  # the policy draws one and says which
        self._seed += 1
        return self._seed - 1
