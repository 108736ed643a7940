# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Trains the reach policy: SmolVLA's flow-matching loss, and two heads that exist here alone.

Flow matching by itself stays at chance for a long time: which cube the words mean has to be found
through the whole network. The centre head asks the vision tower's patches where each cube is; the
goal head asks the state token, as it enters the last text layer, where the named cube is and which
joint goal belongs to it. Both are thrown away when training ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from reach_backbone import IMAGE_SIDE_PX, PATCH_SIDE_PX, TEXT, VISION
from reach_checkpoint import CHUNK_STEPS, Arrays
from reach_data import Dataset
from reach_model import Scale, encode, to_pixels
from torch import Tensor, nn

from vla_deploy.models.flow import flow_loss, interpolate, sample_times
from vla_deploy.models.smolvla import SmolVLA
from vla_deploy.sim import reach

GRID = IMAGE_SIDE_PX // PATCH_SIDE_PX
CENTRE_MIDDLE_M = (0.52, 0.0)
CENTRE_SPREAD_M = (0.08, 0.15)
PIXEL_NOISE = 0.01
TEMPLATES = ('reach the {} cube', 'go to the {} cube', 'move above the {} cube')
TEMPLATE_SHARES = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class Phase:
    """A stretch of training: a constant learning rate, or a cosine from it down to nothing."""

    steps: int
    learning_rate: float
    cosine: bool
    centre_weight: float
    goal_weight: float


@dataclass(frozen=True)
class Options:
    """How to train. `images` is the batch; each image has three sentences and each of those
    `draws` pairs of noise and time."""

    phases: tuple[Phase, ...]
    images: int
    draws: int
    seed: int
    warmup_steps: int = 50
    weight_decay: float = 0.01
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Progress:
    """Where training is, and the losses averaged since the report before."""

    step: int
    steps: int
    learning_rate: float
    flow: float
    patch: float
    centre: float
    goal: float


class TrainingHeads(nn.Module):
    """The two heads; `centres` reads patches, `goals` the state token."""

    def __init__(self) -> None:
        super().__init__()
        colours = len(reach.COLOURS)
        self.patch = nn.Linear(VISION['hidden_size'], colours)
        self.offset = nn.Linear(VISION['hidden_size'], 2 * colours)
        self.goal = nn.Linear(TEXT['hidden_size'], 2 + len(reach.JOINTS))

    def centres(self, patches: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return patch logits [n, 3, patches] and the centres [n, 3, 2] read at patches `index` [n,
        3].
        """
        logits = self.patch(patches).transpose(1, 2)
        places = self.offset(patches).unflatten(-1, (len(reach.COLOURS), 2)).transpose(1, 2)
        chosen = index[:, :, None, None].expand(-1, -1, 1, 2)
        return logits, places.gather(2, chosen)[:, :, 0]


class Batches:
    """The dataset as tensors on one device, and shuffled batches of it."""

    def __init__(self, data: Dataset, statistics: Arrays, device: torch.device) -> None:
        def tensor(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array).to(device)

        self.device = device
        self.images = tensor(data.images)
        self.position = tensor(data.position)
        self.goal = tensor(data.goal)
        middle, spread = (
            torch.tensor(values, device=device) for values in (CENTRE_MIDDLE_M, CENTRE_SPREAD_M)
        )
        self.centre = (tensor(data.centre) - middle) / spread
        cell = (tensor(data.pixel) * GRID).long().clamp(0, GRID - 1)
        self.patch = cell[..., 1] * GRID + cell[..., 0]
        self.state_scale = Scale.of(statistics, 'observation.state', device)
        self.action_scale = Scale.of(statistics, 'action', device)
        sentences = [text.format(colour) for text in TEMPLATES for colour in reach.COLOURS]
        ids, mask = encode(sentences)
        shape = (len(TEMPLATES), len(reach.COLOURS), -1)
        self.ids, self.mask = tensor(ids).view(shape), tensor(mask).view(shape)

    def indices(self, count: int, rng: torch.Generator) -> Iterator[Tensor]:
        """Yield shuffled indices [count] without end; an epoch's last, smaller batch is dropped."""
        if count > len(self.images):
            raise ValueError(f'a batch of {count} images from {len(self.images)}: record more')
        while True:
            order = torch.randperm(len(self.images), generator=rng)
            for start in range(0, len(order) - count + 1, count):
                yield order[start : start + count].to(self.device)


def chunk_labels(position: Tensor, goal: Tensor) -> Tensor:
    """Return the expert's chunks [n, 3, 16, 7] from positions [n, 7] to goals [n, 3, 7]."""
    position = position[:, None].expand_as(goal)
    samples = []
    for _ in range(CHUNK_STEPS):
        left = goal - position
        largest = left.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)
        position = position + left * (reach.STEP_LIMIT_RAD / largest).clamp_max(reach.STEP_GAIN)
        samples.append(position)
    return torch.stack(samples, dim=2)


def initialise(model: SmolVLA) -> None:
    """Give image tokens, words and patch positions a size that the layers can still change.

    Torch's defaults, times the √width by which SmolVLA multiplies them, would leave them ten times
    as large as what a fresh layer adds.
    """
    width = TEXT['hidden_size']
    inputs = VISION['hidden_size'] * 4
    parts = model.parts
    nn.init.normal_(parts.text_model.embed_tokens.weight, std=width**-0.5)
    nn.init.normal_(parts.connector.modality_projection.proj.weight, std=(inputs * width) ** -0.5)
    nn.init.normal_(parts.vision_model.embeddings.position_embedding.weight, std=0.3)


def losses(
    model: SmolVLA, heads: TrainingHeads, batches: Batches, index: Tensor, draws: int
) -> dict[str, Tensor]:
    """Return the scalar losses flow, patch, centre and goal of the images `index` [n]."""
    count, colours = len(index), len(reach.COLOURS)
    pixels = to_pixels(batches.images[index])
    pixels = pixels + PIXEL_NOISE * torch.randn_like(pixels)
    patches = model.parts.vision_model(pixels.flatten(0, 1))
    logits, centres = heads.centres(patches, batches.patch[index])
    image_tokens = model.parts.connector(patches).repeat_interleave(colours, dim=0)

    shares = torch.tensor(TEMPLATE_SHARES, device=index.device)
    template = torch.multinomial(shares, count, replacement=True)
    state = batches.state_scale.to_model(batches.position[index]).repeat_interleave(colours, dim=0)
    prefix = model.prefix_from_image_tokens(
        image_tokens,
        torch.ones(len(image_tokens), 1, dtype=torch.bool, device=index.device),
        batches.ids[template].flatten(0, 1),
        batches.mask[template].flatten(0, 1),
        state,
    )
    goal = batches.goal[index]
    wanted = torch.cat((batches.centre[index], batches.action_scale.to_model(goal)), dim=-1)
    told = heads.goal(prefix.hidden[:, -1])

    labels = chunk_labels(batches.position[index], goal).flatten(0, 1)
    actions = batches.action_scale.to_model(labels).repeat(draws, 1, 1)
    times = sample_times(len(actions)).to(index.device)
    x, target = interpolate(actions, torch.randn_like(actions), times)
    velocity = model.velocity(
        prefix.key.repeat(1, draws, 1, 1, 1),
        prefix.value.repeat(1, draws, 1, 1, 1),
        prefix.mask.repeat(draws, 1),
        x,
        model.embed_time(times),
    )
    return {
        'flow': flow_loss(velocity, target).mean(),
        'patch': F.cross_entropy(logits.flatten(0, 1), batches.patch[index].flatten()),
        'centre': F.l1_loss(centres, batches.centre[index]),
        'goal': F.l1_loss(told, wanted.flatten(0, 1)),
    }


def train(
    model: SmolVLA,
    batches: Batches,
    options: Options,
    report: Callable[[Progress], None],
    report_every: int = 100,
) -> None:
    """Train `model` in place. The same seed, data, device and thread count give the same weights,
    as far as torch's kernels on that device are deterministic."""
    torch.manual_seed(options.seed)
    shuffle = torch.Generator().manual_seed(options.seed)
    heads = TrainingHeads().to(batches.device)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.95), weight_decay=options.weight_decay)
    indices = batches.indices(options.images, shuffle)
    total = sum(phase.steps for phase in options.phases)
    model.train()
    sums: dict[str, Tensor] = {}
    step = 0
    for phase in options.phases:
        for within in range(phase.steps):
            rate = _rate(phase, within) * min(1.0, (step + 1) / options.warmup_steps)
            for group in optimizer.param_groups:
                group['lr'] = rate
            found = losses(model, heads, batches, next(indices), options.draws)
            loss = (
                found['flow']
                + phase.centre_weight * (found['patch'] + found['centre'])
                + phase.goal_weight * found['goal']
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, options.clip_norm)
            optimizer.step()
            step += 1
            for name, value in found.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
            if step % report_every == 0 or step == total:
                since = (step - 1) % report_every + 1
                means = {name: float(value) / since for name, value in sums.items()}
                if not all(math.isfinite(value) for value in means.values()):
                    raise RuntimeError(f'training diverged before step {step}: {means}')
                report(Progress(step, total, rate, **means))
                sums = {}


def _rate(phase: Phase, step: int) -> float:
    if not phase.cosine:
        return phase.learning_rate
    return phase.learning_rate * 0.5 * (1 + math.cos(math.pi * step / phase.steps))
