# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Write a checkpoint of published size with seeded random weights, to measure export on.

    python -m tools.export.random_checkpoint smolvla FOLDER [--seed N] [--dtype bfloat16]

The configuration is LeRobot's default one with the sizes of the published backbones; names and
shapes of the tensors are those of the published checkpoints. Processors and tokenizer are those
of the golden cases. Run it from the root of the repository.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_deploy.models import smolvla
from vla_deploy.models.pi import Pi
from vla_deploy.models.published import PUBLISHED
from vla_deploy.models.smolvla import SmolVLA, SmolVLAConfig

GOLDENS = Path(__file__).parents[2] / 'test' / 'goldens'
GOLDEN_OF = {'smolvla': 'smolvla_3cam', 'pi0': 'pi0', 'pi05': 'pi05'}
SMOLVLM = 'HuggingFaceTB/SmolVLM2-500M-Video-Instruct'
CHUNK = 50
TEXT_TOKENS = {'smolvla': 48, 'pi0': 48, 'pi05': 200}
# What the golden configurations change for their tiny backbones, as it is by default.
CONFIG: Mapping[str, Mapping[str, Any]] = {
    'smolvla': {
        'vlm_model_name': SMOLVLM,
        'resize_imgs_with_padding': [512, 512],
        'num_vlm_layers': 16,
        'num_expert_layers': -1,
    },
    'pi0': {'image_resolution': [224, 224]},
    'pi05': {'image_resolution': [224, 224]},
}
DTYPES = {'float32': 'F32', 'bfloat16': 'BF16'}


def model(family: str) -> torch.nn.Module:
    """Return the module at its published size, without storage for the parameters."""
    sizes = PUBLISHED[family]
    with torch.device('meta'):
        return SmolVLA(sizes) if isinstance(sizes, SmolVLAConfig) else Pi(sizes)


def write_weights(family: str, path: Path, dtype: str, seed: int) -> int:
    """Write model.safetensors one tensor at a time and return the number of parameters."""
    shapes = {f'model.{name}': tuple(p.shape) for name, p in model(family).named_parameters()}
    if family == 'smolvla':  # published files hold the head, which no one uses
        text = PUBLISHED[family].text
        shapes[f'model.{smolvla.UNUSED_KEYS[0]}'] = (text.vocab_size, text.hidden_size)
    width = 4 if dtype == 'float32' else 2
    header, end = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * width
        header[name] = {
            'dtype': DTYPES[dtype], 'shape': list(shape), 'data_offsets': [end, end + size]
        }
        end += size
    text = json.dumps(header).encode('ascii')
    text += b' ' * (-len(text) % 8)
    generator = np.random.Generator(np.random.Philox(seed))
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for name, shape in shapes.items():
            values = torch.from_numpy(_values(generator, name, shape))
            file.write(values.to(getattr(torch, dtype)).view(torch.uint8).numpy().data)
    return sum(math.prod(shape) for shape in shapes.values())


def _values(generator: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a tensor: matrices that keep the size of what they multiply, norms near their start."""
    count = math.prod(shape)
    values = generator.standard_normal(count, dtype=np.float32)
    if len(shape) > 1:
        values *= np.float32(math.prod(shape[1:]) ** -0.5)
    else:
        values *= np.float32(0.02)
        plain_norm = 'gemma' not in name and 'language_model' not in name
        if 'norm' in name and name.endswith('.weight') and plain_norm:
            values += np.float32(1.0)
    return values


def write_checkpoint(family: str, folder: Path, dtype: str, seed: int) -> int:
    """Write the whole folder and return the number of parameters; raises FileExistsError."""
    folder.mkdir(parents=True)
    golden = GOLDENS / GOLDEN_OF[family]
    for file in (golden / 'checkpoint').iterdir():
        if file.name != 'model.safetensors':
            shutil.copyfile(file, folder / file.name)
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        shutil.copyfile(golden / 'backbone' / name, folder / name)
    config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    config |= CONFIG[family]
    config |= {'chunk_size': CHUNK, 'n_action_steps': CHUNK}
    config |= {'tokenizer_max_length': TEXT_TOKENS[family]}
    (folder / 'config.json').write_text(json.dumps(config, indent=1), encoding='utf-8')
    path = folder / 'policy_preprocessor.json'
    steps = json.loads(path.read_text(encoding='utf-8'))
    for step in steps['steps']:
        if step['registry_name'] == 'tokenizer_processor':
            step['config']['max_length'] = TEXT_TOKENS[family]
    path.write_text(json.dumps(steps, indent=1), encoding='utf-8')
    return write_weights(family, folder / 'model.safetensors', dtype, seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Write a checkpoint and say how large it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('family', choices=sorted(GOLDEN_OF))
    parser.add_argument('folder', type=Path, help='folder to make')
    parser.add_argument('--seed', type=int, default=1, help='seed of the weights (1)')
    parser.add_argument('--dtype', choices=sorted(DTYPES), default='float32')
    arguments = parser.parse_args(argv)
    count = write_checkpoint(
        arguments.family, arguments.folder, arguments.dtype, arguments.seed
    )
    print(f'{arguments.folder}: {arguments.family}, {count / 1e6:.1f} M parameters')
    return 0


if __name__ == '__main__':
    sys.exit(main())
