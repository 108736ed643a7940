# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A weights file of published size with random weights, and what a backend loads it as."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from vla_deploy.backends.fused_inputs import Config
from vla_deploy.backends.parameters import SCHEMA_VERSION
from vla_deploy.core import strict
from vla_deploy.core.contract import TimeEmbedding
from vla_deploy.models.expert import expert_sizes
from vla_deploy.models.pi import Pi
from vla_deploy.models.published import PUBLISHED
from vla_deploy.models.smolvla import SmolVLA, SmolVLAConfig
from vla_deploy.pipeline.bundle import PARAMETERS, WEIGHTS

ALIGNMENT_BYTES = 64
NOISE_ELEMENTS = 1 << 22
SMALL = 0.02


def write_weights(name: str, folder: Path) -> int:
    """Write weights and their table as export does; return the weights' bytes."""
    config = PUBLISHED[name]
    with torch.device('meta'):
        model = (SmolVLA if isinstance(config, SmolVLAConfig) else Pi)(config)
    noise = np.random.default_rng(0).standard_normal(NOISE_ELEMENTS, np.float32) * SMALL
    tensors, end = {}, 0
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / WEIGHTS, 'wb') as file:
        for parameter, value in model.named_parameters():
            end += -end % ALIGNMENT_BYTES
            file.seek(end)
            tensors[parameter] = {
                'shape': list(value.shape), 'offset': end,
                'transposed': value.dim() == 2 and 'embed' not in parameter,
            }
            for begin in range(0, value.numel(), NOISE_ELEMENTS):
                file.write(noise[: value.numel() - begin].data)
            end += value.numel() * noise.itemsize
    table = {
        'schema_version': SCHEMA_VERSION, 'family': name, 'model': strict.to_mapping(config),
        'tensors': tensors,
    }
    (folder / PARAMETERS).write_text(json.dumps(table))
    return end


def config_of(folder: Path) -> Config:
    """Return the sizes of the policy whose weights a folder holds."""
    return PUBLISHED[json.loads((folder / PARAMETERS).read_text())['family']]


def bundle_of(folder: Path) -> Any:
    """Return what `load` of the torch backend reads of a bundle, for a folder that was written."""
    config = config_of(folder)
    if isinstance(config, SmolVLAConfig):
        width, _ = expert_sizes(config.text, config.expert_width_multiplier)
    else:
        width = config.expert.hidden_size
    contract = SimpleNamespace(
        time_embedding=TimeEmbedding(width, config.min_period, config.max_period),
        denoise_steps=config.num_steps, reserved_inputs=(), cameras=range(config.camera_slots),
    )
    return SimpleNamespace(path=folder, receipt={'files': {PARAMETERS: ''}}, contract=contract)
