# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Sizes of the published policies with three cameras, for figures that need no checkpoint."""

from __future__ import annotations

from vla_deploy.models.gemma import GemmaConfig
from vla_deploy.models.language import TextConfig
from vla_deploy.models.pi import PiConfig
from vla_deploy.models.smolvla import SmolVLAConfig
from vla_deploy.models.vision import VisionConfig

PALIGEMMA_VOCABULARY, SMOLVLM_VOCABULARY = 257_152, 49_280


def _pi(state_in_text: bool, max_tokens: int) -> PiConfig:
    return PiConfig(
        vision=VisionConfig(1152, 4304, 27, 16, 224, 14),
        text=GemmaConfig(2048, 16384, 18, 8, 1, 256),
        expert=GemmaConfig(1024, 4096, 18, 8, 1, 256),
        vocab_size=PALIGEMMA_VOCABULARY,
        state_in_text=state_in_text,
        camera_slots=3,
        max_tokens=max_tokens,
        max_state_dim=32,
        max_action_dim=32,
        chunk_size=50,
        num_steps=10,
    )


PUBLISHED: dict[str, PiConfig | SmolVLAConfig] = {
    'pi0': _pi(state_in_text=False, max_tokens=48),
    'pi05': _pi(state_in_text=True, max_tokens=200),
    'smolvla': SmolVLAConfig(
        vision=VisionConfig(768, 3072, 12, 12, 512, 16),
        text=TextConfig(960, 2560, 15, 5, 64, SMOLVLM_VOCABULARY),
        scale_factor=4,
        num_vlm_layers=16,
        expert_width_multiplier=0.75,
        self_attn_every_n_layers=2,
        image_height=512,
        image_width=512,
        camera_slots=3,
        max_tokens=48,
        max_state_dim=32,
        max_action_dim=32,
        chunk_size=50,
        num_steps=10,
    ),
}
