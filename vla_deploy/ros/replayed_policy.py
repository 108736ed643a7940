# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline that serves, fed with what a bag holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rclpy.serialization import deserialize_message

from vla_deploy.core.parameter import config_from_mapping, parameters_of
from vla_deploy.pipeline import Guidance
from vla_deploy.pipeline.assembly import Assembled
from vla_deploy.pipeline.inference_config import InferenceConfig
from vla_deploy.ros.chunk_maker import ChunkMaker, Made
from vla_deploy.ros.recorded_topics import message_type
from vla_deploy.ros.served_policy import load_policy
from vla_deploy.trace.replay import SeenChunk


class ReplayedPolicy:
    """A policy as it was configured, with its own bundle or another one."""

    def __init__(self, parameters: Mapping[str, Any], bundle: str = '') -> None:
        """Load it and warm it up; raises what `load_policy` raises, and ParameterError."""
        known = {p.name for p in parameters_of(InferenceConfig)}
        given = {k: v for k, v in parameters.items() if k in known and v is not None}
        config = config_from_mapping(InferenceConfig, given)
        self.config = replace(config, bundle=bundle or config.bundle)
        served = load_policy(self.config)
        served.policy.self_test()
        self.model_sha256 = served.policy.model_sha256
        self.contract = served.contract
        # The seed is the recorded one, and a chunk that was late was not recorded.
        self._maker = ChunkMaker(
            served, config.strategy, -1, config.chunk_valid_s, config.adaptive_steps,
            config.depth_max_m,
        )  # fmt: skip

    def infer(self, seen: SeenChunk) -> Made:
        """Compute a chunk again; raises ObservationError."""
        message = seen.message
        images = {
            camera: deserialize_message(image.data, message_type(image.type_name))
            for camera, image in seen.images.items()
        }
        guidance = None
        if seen.guidance is not None:
            guidance = Guidance(
                seen.guidance, message.guidance_delay_steps, message.guided_steps,
                self.config.guidance_schedule, self.config.guidance_max_weight,
            )  # fmt: skip
        assembled = Assembled(images, seen.state, 0)
        return self._maker.make(assembled, message.instruction, message.noise_seed, guidance)
