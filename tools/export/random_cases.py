# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Compare random tiny checkpoints with LeRobot itself, and both with float64 arithmetic.

    python -m tools.export.random_cases pi0 --seeds 0 21

Every seed gives a checkpoint of other sizes and four observations with other images, states and
prompts. A line says how far the torch modules and the exported graphs on ONNX Runtime are from
LeRobot's chunk, model space, when they are given the tensors that its model got, and how far each
of the three is from the torch modules in float64. Run it from the root of the repository, where
LeRobot can be imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tools.export.random_checkpoint import GOLDENS
from vla_deploy.core.contract import Contract
from vla_deploy.export import smolvla as smolvla_checkpoint
from vla_deploy.export.backbone import load_tokenizer
from vla_deploy.export.checkpoint import read_checkpoint
from vla_deploy.export.families import family_of
from vla_deploy.export.fixtures import Case
from vla_deploy.export.golden import (
    DIMS,
    GOLDENS_OF,
    GoldenCase,
    golden_checkpoint,
    sample_graphs,
)
from vla_deploy.export.graph import export_graphs
from vla_deploy.export.lerobot import LeRobotReference
from vla_deploy.export.parity import GraphRunner, compare
from vla_deploy.export.torch_pipeline import ModelInputs, TorchPipeline
from vla_deploy.models import pi, smolvla
from vla_deploy.models.gemma import GemmaConfig
from vla_deploy.models.pi import Pi, PiConfig
from vla_deploy.models.smolvla import SmolVLA
from vla_deploy.models.vision import VisionConfig
from vla_deploy.pipeline import Observation
from vla_deploy.pipeline.bundle import PREFIX_GRAPH, STEP_GRAPH, WEIGHTS

OBSERVATIONS = 4
VOCABULARY = 1024  # of the golden cases' tokenizers
WORDS = (
    'pick up the red cube place it in green bin next to blue drawer close open slowly then wipe '
    'table sponge fold towel stack blocks left right gripper 1 2 3 4'
)
CAMERAS = ((256, 256), (480, 640), (64, 48), (120, 160))
COLUMNS = ('torch', 'graphs', 'LeRobot, float64', 'torch, float64', 'graphs, float64')


class Draw:
    """Choices of one seed."""

    def __init__(self, family: str, seed: int) -> None:
        self.generator = np.random.default_rng([seed, *family.encode('ascii')])

    def one(self, *choices: Any) -> Any:
        return choices[int(self.generator.integers(len(choices)))]

    def weights(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        """Return tensors of the sizes that the golden cases' have."""
        return {name: torch.from_numpy(self._tensor(name, s)) for name, s in shapes.items()}

    def _tensor(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        values = self.generator.standard_normal(shape).astype(np.float32)
        if name.endswith('.dense.weight'):
            scale = 2 / math.sqrt(shape[1])
        elif name.endswith('.dense.bias'):
            scale = 0.5
        elif len(shape) > 1:
            scale = (0.35 if 'embed_tokens' in name else 0.7) / math.sqrt(math.prod(shape[1:]))
        else:
            scale = 0.1 if name.endswith('norm.weight') else 0.05
        gemma = 'gemma' in name and 'vision' not in name  # its norms scale by 1 + weight
        start = 1.0 if 'norm' in name and name.endswith('.weight') and not gemma else 0.0
        return (values * scale + (start if len(shape) == 1 else 0.0)).astype(np.float32)

    def case(self, contract: Contract, statistics: dict[str, Any], index: int) -> Case:
        """Return an observation and noise: the third has a camera less, the fourth a long text."""
        rng = self.generator
        images = {}
        for camera in contract.cameras[: -1 if index == 2 else None] or contract.cameras:
            height, width = self.one(*CAMERAS)
            block = self.one(1, 16)
            small = rng.integers(0, 256, (-(-height // block), -(-width // block), 3), np.uint8)
            image = small.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
            images[camera.name] = np.ascontiguousarray(image)
        words = rng.choice(WORDS.split(), int(rng.integers(0, 60 if index == 3 else 14)))
        normal = rng.standard_normal(contract.state.dim)
        if contract.state.normalization.mode == 'mean_std':
            state = statistics['state.mean'] + normal * statistics['state.std']
        else:
            low, high = statistics['state.q01'], statistics['state.q99']
            state = low + (high - low) * (0.5 + 0.3 * normal)
        shape = (contract.chunk_steps, contract.action.padded_dim)
        return Case(
            Observation(images, state.astype(np.float32), ' '.join(words)),
            rng.standard_normal(shape).astype(np.float32),
        )


def write_checkpoint(family: str, seed: int, folder: Path, draw: Draw) -> None:
    """Write a checkpoint of other sizes than the golden one, which it is a copy of otherwise."""
    golden = GOLDENS / GOLDENS_OF[family][seed % len(GOLDENS_OF[family])]
    for part in ('checkpoint', 'backbone'):
        shutil.copytree(golden / part, folder / part)
    path = folder / 'checkpoint' / 'config.json'
    config = json.loads(path.read_text(encoding='utf-8'))
    config['chunk_size'] = config['n_action_steps'] = draw.one(5, 8, 10, 16, 20)
    steps = draw.one(4, 5, 10, 10, 10)
    make = _smolvla if family == 'smolvla' else _pi
    shapes = make(folder, config, path, steps, draw)
    weights = draw.weights({f'model.{name}': shape for name, shape in shapes.items()})
    save_file(weights, folder / 'checkpoint' / 'model.safetensors')


def _smolvla(
    folder: Path, config: dict[str, Any], path: Path, steps: int, draw: Draw
) -> dict[str, tuple[int, ...]]:
    side = draw.one(64, 96, 128)
    config |= {
        'num_steps': steps, 'num_vlm_layers': draw.one(2, 3, 4, 6), 'num_expert_layers': -1,
        'self_attn_every_n_layers': draw.one(2, 2, 3), 'resize_imgs_with_padding': [side, side],
        'expert_width_multiplier': draw.one(0.5, 0.75),
    }
    path.write_text(json.dumps(config), encoding='utf-8')
    backbone_path = folder / 'backbone' / 'config.json'
    backbone = json.loads(backbone_path.read_text(encoding='utf-8'))
    (heads, groups), size = draw.one((6, 2), (4, 2), (3, 1), (8, 8)), draw.one(16, 32)
    width = draw.one(32, 48, 64)
    backbone['vision_config'] |= {
        'hidden_size': width, 'intermediate_size': 2 * width, 'image_size': draw.one(64, 96),
        'num_hidden_layers': draw.one(1, 2, 3),
    }
    backbone['text_config'] |= {
        'hidden_size': heads * size, 'intermediate_size': draw.one(128, 192), 'head_dim': size,
        'num_attention_heads': heads, 'num_key_value_heads': groups, 'num_hidden_layers': 8,
    }
    backbone_path.write_text(json.dumps(backbone), encoding='utf-8')
    model = SmolVLA(smolvla_checkpoint.model_config(read_checkpoint(path.parent)))
    head = {smolvla.UNUSED_KEYS[0]: (VOCABULARY, heads * size)}
    return {name: tuple(p.shape) for name, p in model.named_parameters()} | head


def _pi(
    folder: Path, config: dict[str, Any], path: Path, steps: int, draw: Draw
) -> dict[str, tuple[int, ...]]:
    side = draw.one(42, 56, 56, 70)
    config |= {'num_inference_steps': steps, 'image_resolution': [side, side]}
    path.write_text(json.dumps(config), encoding='utf-8')
    vision = VisionConfig(
        draw.one(32, 48, 64), draw.one(64, 96), draw.one(1, 2, 3), 4, side, patch_size=14
    )
    layers = (draw.one(2, 3, 4), 8, 1, draw.one(8, 16, 32))
    text = GemmaConfig(draw.one(48, 64, 96), draw.one(96, 128, 192), *layers)
    expert = GemmaConfig(draw.one(32, 48, 64), draw.one(64, 128), *layers)
    dims_path = folder / DIMS
    dims = json.loads(dims_path.read_text(encoding='utf-8'))
    in_file = {'num_layers': 'num_hidden_layers'}
    for values, sizes in (
        (dims['paligemma']['vision_config'], vision),
        (dims['paligemma']['text_config'], text), (dims['gemma_expert'], expert),
    ):
        values |= {in_file.get(k, k): v for k, v in dataclasses.asdict(sizes).items()}
    dims_path.write_text(json.dumps(dims), encoding='utf-8')
    model = Pi(
        PiConfig(
            vision, text, expert, VOCABULARY, config['type'] == 'pi05', 3, 48,
            config['max_state_dim'], config['max_action_dim'], config['chunk_size'], steps,
        )
    )
    widths = (text.hidden_size, expert.hidden_size)
    heads = {n: (VOCABULARY, w) for n, w in zip(pi.UNUSED_KEYS, widths, strict=True)}
    return {name: tuple(p.shape) for name, p in model.named_parameters()} | heads


def compare_seed(family: str, seed: int, folder: Path) -> list[float]:
    """Return the largest differences over a checkpoint's observations, in the order of COLUMNS."""
    draw = Draw(family, seed)
    write_checkpoint(family, seed, folder, draw)
    checkpoint = golden_checkpoint(folder)
    contract = family_of(checkpoint).contract(checkpoint)
    statistics = dict(checkpoint.processors.statistics)
    lerobot = LeRobotReference(checkpoint, contract)
    model, _ = family_of(checkpoint).load(checkpoint)
    export_graphs(model, *(folder / name for name in (PREFIX_GRAPH, STEP_GRAPH, WEIGHTS)))
    runner = GraphRunner(folder / PREFIX_GRAPH, folder / STEP_GRAPH, torch.get_num_threads())
    modules = TorchPipeline(model, contract, statistics, load_tokenizer(checkpoint.tokenizer))
    rows = []
    for index in range(OBSERVATIONS):
        case = draw.case(contract, statistics, index)
        run = lerobot(case)
        given = {'state_norm_pad': np.zeros(contract.state.padded_dim, np.float32), **run.given}
        inputs = GoldenCase(case.observation, case.noise, given, ()).model_inputs(contract)
        chunks = [modules.chunk(inputs, case.noise)]
        chunks.append(sample_graphs(runner, inputs, case.noise, modules))
        model.double()
        exact = modules.chunk(_double(inputs), case.noise.astype(np.float64))
        model.float()
        pairs = [(chunk, run.chunk) for chunk in chunks]
        pairs += [(chunk, exact) for chunk in (run.chunk, *chunks)]
        rows.append([compare(a, b, 'chunk').max_abs for a, b in pairs])
    return [max(column) for column in zip(*rows, strict=True)]


def _double(inputs: ModelInputs) -> ModelInputs:
    return dataclasses.replace(
        inputs, images=inputs.images.double(), state=inputs.state.double()
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each seed, then the largest and the median of each column."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('family', choices=sorted(GOLDENS_OF))
    parser.add_argument('--seeds', type=int, nargs=2, default=(0, 21), metavar=('FIRST', 'END'))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(2)
    print(f'| seed | {" | ".join(COLUMNS)} |\n|{"---|" * (1 + len(COLUMNS))}')
    rows = []
    for seed in range(*arguments.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(compare_seed(arguments.family, seed, Path(scratch)))
        print(_line(str(seed), rows[-1]), flush=True)
    print(_line('largest', np.max(rows, axis=0).tolist()))
    print(_line('median', np.median(rows, axis=0).tolist()))
    return 0


def _line(name: str, row: list[float]) -> str:
    return f'| {name} | {" | ".join(f"{value:.2e}" for value in row)} |'


if __name__ == '__main__':
    sys.exit(main())
