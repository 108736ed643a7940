# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A whole policy in torch, processors included: what the served pipeline is held to.

It does with torch's operators what LeRobot's processors do, and shares no code with the numpy
pipeline that serves. Its own agreement with LeRobot is recorded in `evidence/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from vla_deploy.core.contract import Contract
from vla_deploy.models.families import FlowPolicy
from vla_deploy.models.pi import PiPrefix
from vla_deploy.models.smolvla import Prefix
from vla_deploy.pipeline.observation import Observation
from vla_deploy.pipeline.sampler import StepFunction

_BOUNDS = {'quantiles': ('q01', 'q99'), 'min_max': ('min', 'max')}


@dataclass(frozen=True)
class ModelInputs:
    """What the prefix takes, without a batch dimension: images [slots,3,H,W] in [-1,1],
    image_mask bool [slots], tokens int64 [T], token_mask bool [T], state [padded_dim]."""

    images: Tensor
    image_mask: Tensor
    tokens: Tensor
    token_mask: Tensor
    state: Tensor


class TorchPipeline:
    """Raw observation to robot-unit actions."""

    def __init__(
        self,
        model: FlowPolicy,
        contract: Contract,
        statistics: Mapping[str, NDArray[np.float32]],
        tokenizer: Tokenizer,
    ) -> None:
        self.model = model
        self.contract = contract
        self._statistics = {
            name: torch.from_numpy(values.copy()) for name, values in statistics.items()
        }
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(contract.tokenizer.max_length, direction='right')

    def inputs(self, observation: Observation) -> ModelInputs:
        """Preprocess one observation; absent cameras are masked and come last."""
        present = self.images(observation)
        slots = self.contract.camera_slots
        absent = slots - len(present)
        tokens, token_mask, state = self.text_and_state(observation)
        return ModelInputs(
            torch.stack(present + [torch.full_like(present[0], -1.0)] * absent),
            torch.arange(slots) < len(present),
            tokens,
            token_mask,
            state,
        )

    def images(self, observation: Observation) -> list[Tensor]:
        """Return the images of the cameras that are there, in the contract's order."""
        return [
            self._image(observation.images[camera.name])
            for camera in self.contract.cameras
            if camera.name in observation.images
        ]

    def text_and_state(self, observation: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens, their mask and the padded state, as in ModelInputs."""
        spec = self.contract.state
        state = self._normalize('state', torch.tensor(observation.state, dtype=torch.float32))
        tokens, token_mask = self._tokens(self._prompt(observation.instruction, state))
        return tokens, token_mask, F.pad(state, (0, spec.padded_dim - spec.dim))

    @torch.no_grad()
    def chunk(self, inputs: ModelInputs, noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the model-space chunk, float32 [steps,padded_dim]."""
        prefix = self._prefix(inputs)
        result: NDArray[np.float32] = self.model.sample(prefix, torch.from_numpy(noise)[None])[
            0
        ].numpy()
        return result

    @torch.no_grad()
    def chunks(self, inputs: ModelInputs, noises: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return one chunk for each noise, both float32 [n,steps,padded_dim]."""
        prefix, count = self._prefix(inputs), len(noises)
        many = dataclasses.replace(
            prefix,
            key=prefix.key.expand(-1, count, -1, -1, -1),
            value=prefix.value.expand(-1, count, -1, -1, -1),
            mask=prefix.mask.expand(count, -1),
        )
        result: NDArray[np.float32] = self.model.sample(many, torch.from_numpy(noises)).numpy()
        return result

    @torch.no_grad()
    def step_function(self, inputs: ModelInputs) -> StepFunction:
        """Return Euler steps of these inputs for the pipeline's sampler."""
        prefix = self._prefix(inputs)

        @torch.no_grad()
        def step(
            x: NDArray[np.float32], time_embedding: NDArray[np.float32], dt: np.float32
        ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            moved, velocity = self.model.step(
                prefix.key, prefix.value, prefix.mask, torch.from_numpy(x)[None],
                torch.from_numpy(time_embedding)[None], float(dt),
            )
            return moved[0].numpy(), velocity[0].numpy()

        return step

    def actions(
        self, chunk: NDArray[np.float32], observation: Observation
    ) -> NDArray[np.float32]:
        """Return robot-unit actions, float32 [steps,dim], of a model-space chunk; what is relative
        to the observation's state is made absolute."""
        spec = self.contract.action
        values = torch.from_numpy(chunk[:, : spec.dim].copy())
        mode = spec.normalization.mode
        if mode == 'mean_std':
            values = values * self._statistics['action.std'] + self._statistics['action.mean']
        elif mode != 'identity':
            low, span = self._range('action')
            values = (values + 1.0) * span / 2.0 + low
        state = torch.tensor(observation.state, dtype=torch.float32)
        for dim in spec.delta_dims:
            values[:, dim] += state[dim]
        result: NDArray[np.float32] = values.numpy()
        return result

    def _prefix(self, inputs: ModelInputs) -> Prefix | PiPrefix:
        values = (
            inputs.images, inputs.image_mask, inputs.tokens, inputs.token_mask, inputs.state
        )
        return self.model.prefix(*(value[None] for value in values))

    def _image(self, image: NDArray[np.uint8]) -> Tensor:
        """Resize uint8 [h,w,3] with its aspect kept, pad, scale to [-1,1]."""
        rule = self.contract.image
        owned = np.require(image, requirements='CW')  # copied only where torch cannot take it
        pixels = torch.from_numpy(owned).float().div(255).permute(2, 0, 1).contiguous()[None]
        height, width = pixels.shape[2:]
        if (height, width) != (rule.height, rule.width):
            ratio = max(width / rule.width, height / rule.height)
            size = (int(height / ratio), int(width / ratio))
            pixels = F.interpolate(pixels, size=size, mode='bilinear', align_corners=False)
            top, left = rule.height - size[0], rule.width - size[1]
            if rule.placement == 'pad_center':
                pixels = pixels.clamp(0.0, 1.0)
                top, left = top // 2, left // 2
            bottom, right = rule.height - size[0] - top, rule.width - size[1] - left
            pixels = F.pad(pixels, (left, right, top, bottom))
        return pixels[0] * 2.0 - 1.0

    def _prompt(self, instruction: str, state: Tensor) -> str:
        """Return the text: the instruction, or pi0.5's sentence with the state's 256 bins."""
        spec = self.contract.tokenizer
        text = instruction
        if spec.prompt == 'instruction_and_state':
            edges = torch.linspace(-1.0, 1.0, 257, dtype=torch.float64)[:-1]
            bins = torch.bucketize(state.double(), edges, right=True) - 1
            task = instruction.strip().replace('_', ' ').replace('\n', ' ')
            text = f'Task: {task}, State: {" ".join(str(int(b)) for b in bins)};\nAction: '
        if spec.newline == 'append_if_missing' and not text.endswith('\n'):
            text += '\n'
        return text

    def _tokens(self, text: str) -> tuple[Tensor, Tensor]:
        spec = self.contract.tokenizer
        ids = self._tokenizer.encode(text).ids
        padded = ids + [spec.pad_token_id] * (spec.max_length - len(ids))
        return torch.tensor(padded), torch.arange(spec.max_length) < len(ids)

    def _normalize(self, part: str, values: Tensor) -> Tensor:
        spec = self.contract.state.normalization
        if spec.mode == 'mean_std':
            mean, std = (self._statistics[f'{part}.{what}'] for what in ('mean', 'std'))
            return (values - mean) / (std + spec.epsilon)
        if spec.mode == 'identity':
            return values
        low, span = self._range(part)
        return 2.0 * (values - low) / span - 1.0

    def _range(self, part: str) -> tuple[Tensor, Tensor]:
        """Return the lower bound and the span, which is the epsilon only where exactly 0."""
        spec = self.contract.state if part == 'state' else self.contract.action
        low, high = (
            self._statistics[f'{part}.{what}'] for what in _BOUNDS[spec.normalization.mode]
        )
        span = high - low
        epsilon = torch.tensor(spec.normalization.epsilon, dtype=span.dtype)
        return low, torch.where(span == 0, epsilon, span)
