# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The reach policy as a torch module: its sizes, its input tensors, and its weights by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from reach_backbone import (
    IMAGE_SIDE_PX,
    PAD_TOKEN,
    SPECIAL_TOKENS,
    TEXT,
    VISION,
    WORDS,
    build_tokenizer,
)
from reach_checkpoint import CHUNK_STEPS, DENOISE_STEPS, TOKENS, Arrays
from torch import Tensor

from vla_deploy.models.language import TextConfig
from vla_deploy.models.smolvla import CHECKPOINT_PREFIX, UNUSED_KEYS, SmolVLA, SmolVLAConfig
from vla_deploy.models.vision import VisionConfig
from vla_deploy.sim import reach

EPSILON = 1e-8
_EMBEDDING = 'vlm_with_expert.vlm.model.text_model.embed_tokens.weight'


def build_model() -> SmolVLA:
    """Return a SmolVLA of the reach policy's sizes with fresh weights from torch's global seed."""
    vision_fields = (
        'hidden_size',
        'intermediate_size',
        'num_hidden_layers',
        'num_attention_heads',
        'image_size',
        'patch_size',
    )
    text_fields = (
        'hidden_size',
        'intermediate_size',
        'num_attention_heads',
        'num_key_value_heads',
        'head_dim',
    )
    return SmolVLA(
        SmolVLAConfig(
            vision=VisionConfig(**{name: VISION[name] for name in vision_fields}),
            text=TextConfig(
                **{name: TEXT[name] for name in text_fields},
                vocab_size=len(SPECIAL_TOKENS + WORDS),
            ),
            scale_factor=2,
            num_vlm_layers=TEXT['num_hidden_layers'],
            expert_width_multiplier=0.75,
            self_attn_every_n_layers=2,
            image_height=IMAGE_SIDE_PX,
            image_width=IMAGE_SIDE_PX,
            camera_slots=1,
            max_tokens=TOKENS,
            max_state_dim=len(reach.JOINTS),
            max_action_dim=len(reach.JOINTS),
            chunk_size=CHUNK_STEPS,
            num_steps=DENOISE_STEPS,
        )
    )


def checkpoint_weights(model: SmolVLA) -> Arrays:
    """Return the weights under LeRobot's names.

    LeRobot's file also holds the language model's output layer, which SmolVLA never uses; it gets
    the word embeddings.
    """
    state = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    state[UNUSED_KEYS[0]] = state[_EMBEDDING].copy()
    return {CHECKPOINT_PREFIX + name: array for name, array in state.items()}


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation [dims] that take robot units to model space and back."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, statistics: Arrays, name: str, device: torch.device) -> Scale:
        """Read `name` (observation.state or action) from a checkpoint's statistics."""
        mean, std = (torch.from_numpy(statistics[f'{name}.{key}']) for key in ('mean', 'std'))
        return cls(mean.to(device), std.to(device))

    def to_model(self, values: Tensor) -> Tensor:
        """Normalise [..., dims]."""
        return (values - self.mean) / (self.std + EPSILON)

    def to_robot(self, values: Tensor) -> Tensor:
        """Undo `to_model`, as LeRobot does: without its epsilon."""
        return values * self.std + self.mean


def encode(sentences: list[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return token ids and their mask, both [sentences, TOKENS]; a newline ends each sentence."""
    tokenizer = build_tokenizer()
    pad = tokenizer.token_to_id(PAD_TOKEN)
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS, pad_id=pad, pad_token=PAD_TOKEN)
    ended = [text if text.endswith('\n') else text + '\n' for text in sentences]
    encodings = tokenizer.encode_batch(ended)
    ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
    return ids, np.array([encoding.attention_mask for encoding in encodings], dtype=np.bool_)


def to_pixels(images: Tensor) -> Tensor:
    """Turn grey levels [n, side, side, 3] at the model's size into model input [n, 1, 3, side,
    side].
    """
    return (images.float() / 127.5 - 1).permute(0, 3, 1, 2)[:, None]


class ReachPolicy:
    """The torch policy with its pre- and post-processing: an image, joints and a sentence in."""

    def __init__(self, model: SmolVLA, statistics: Arrays) -> None:
        """Serve `model` on the device where it lies."""
        self._model = model.eval()
        self._device = next(model.parameters()).device
        self._state = Scale.of(statistics, 'observation.state', self._device)
        self._action = Scale.of(statistics, 'action', self._device)

    @torch.no_grad()
    def chunks(
        self,
        shrunk: NDArray[np.float32] | NDArray[np.uint8],
        position: NDArray[np.floating],
        sentences: list[str],
        noise: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Return joint positions [n, 16, 7] rad.

        `shrunk` [n, 128, 128, 3] grey levels after the resize; `position` [n, 7] rad; n sentences;
        `noise` [n, 16, 7].
        """
        ids, mask = (torch.from_numpy(array).to(self._device) for array in encode(sentences))
        state = torch.as_tensor(position, dtype=torch.float32, device=self._device)
        images = to_pixels(torch.from_numpy(shrunk).to(self._device))
        present = torch.ones(len(images), 1, dtype=torch.bool, device=self._device)
        prefix = self._model.prefix(images, present, ids, mask, self._state.to_model(state))
        sampled = self._model.sample(prefix, torch.from_numpy(noise).to(self._device))
        return self._action.to_robot(sampled).double().cpu().numpy()
