# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a trained reach policy as a LeRobot SmolVLA checkpoint.

The files are those of LeRobot's `save_pretrained`: config.json, model.safetensors,
policy_preprocessor.json and policy_postprocessor.json with the dataset's statistics.
`robot_io.yaml` adds the joints' names, the unit and the period.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from reach_backbone import IMAGE_SIDE_PX, TEXT, write_backbone, write_json
from safetensors.numpy import save_file

from vla_deploy.sim import reach

CAMERA = 'front'
CAMERA_KEY = f'observation.images.{CAMERA}'
CAMERA_SIDE_PX = 256
JOINTS = reach.JOINTS
CHUNK_STEPS = 16
EXECUTED_STEPS = 8
DENOISE_STEPS = 10
TOKENS = 8
NORMALIZER_STATE = 'policy_preprocessor_step_5_normalizer_processor.safetensors'
UNNORMALIZER_STATE = 'policy_postprocessor_step_0_unnormalizer_processor.safetensors'
_NORM_MAP = {'VISUAL': 'IDENTITY', 'STATE': 'MEAN_STD', 'ACTION': 'MEAN_STD'}

Arrays = dict[str, NDArray[np.float32]]


def policy_config() -> dict[str, Any]:
    """Return config.json: the features and every field of LeRobot's SmolVLA configuration."""
    return {
        'type': 'smolvla',
        'n_obs_steps': 1,
        'input_features': _features('observation.state', CAMERA_KEY),
        'output_features': _features('action'),
        'device': 'cpu',
        'use_amp': False,
        'use_peft': False,
        'push_to_hub': False,
        'repo_id': None,
        'private': None,
        'tags': None,
        'license': 'apache-2.0',
        'pretrained_path': None,
        'pretrained_revision': None,
        'chunk_size': CHUNK_STEPS,
        'n_action_steps': EXECUTED_STEPS,
        'normalization_mapping': _NORM_MAP,
        'max_state_dim': len(JOINTS),
        'max_action_dim': len(JOINTS),
        'resize_imgs_with_padding': [IMAGE_SIDE_PX, IMAGE_SIDE_PX],
        'empty_cameras': 0,
        'adapt_to_pi_aloha': False,
        'use_delta_joint_actions_aloha': False,
        'tokenizer_max_length': TOKENS,
        'num_steps': DENOISE_STEPS,
        'use_cache': True,
        'freeze_vision_encoder': False,
        'train_expert_only': False,
        'train_state_proj': True,
        'optimizer_lr': 0.0015,
        'optimizer_betas': [0.9, 0.95],
        'optimizer_eps': 1e-08,
        'optimizer_weight_decay': 0.01,
        'optimizer_grad_clip_norm': 1,
        'scheduler_warmup_steps': 50,
        'scheduler_decay_steps': 12000,
        'scheduler_decay_lr': 0.0,
        'vlm_model_name': 'backbone',
        'load_vlm_weights': False,
        'add_image_special_tokens': False,
        'attention_mode': 'cross_attn',
        'prefix_length': 0,
        'pad_language_to': 'max_length',
        'num_expert_layers': 0,
        'num_vlm_layers': TEXT['num_hidden_layers'],
        'self_attn_every_n_layers': 2,
        'expert_width_multiplier': 0.75,
        'min_period': 0.004,
        'max_period': 4.0,
        'rtc_config': None,
        'compile_model': False,
        'compile_mode': 'max-autotune',
    }


def preprocessor_config() -> dict[str, Any]:
    """Return policy_preprocessor.json: newline, tokens, normalisation, in LeRobot's order."""
    tokenizer = {
        'max_length': TOKENS,
        'task_key': 'task',
        'padding_side': 'right',
        'padding': 'max_length',
        'truncation': True,
        'tokenizer_name': 'backbone',
    }
    normalizer = {
        'eps': 1e-08,
        'features': _features('observation.state', CAMERA_KEY, 'action'),
        'norm_map': _NORM_MAP,
    }
    return {
        'name': 'policy_preprocessor',
        'steps': [
            _step('rename_observations_processor', {'rename_map': {}}),
            _step('to_batch_processor', {}),
            _step('smolvla_new_line_processor', {}),
            _step('tokenizer_processor', tokenizer),
            _step('device_processor', {'device': 'cpu', 'float_dtype': None}),
            _step('normalizer_processor', normalizer) | {'state_file': NORMALIZER_STATE},
        ],
    }


def postprocessor_config() -> dict[str, Any]:
    """Return policy_postprocessor.json: model space back to radians."""
    unnormalizer = {'eps': 1e-08, 'features': _features('action'), 'norm_map': _NORM_MAP}
    return {
        'name': 'policy_postprocessor',
        'steps': [
            _step('unnormalizer_processor', unnormalizer) | {'state_file': UNNORMALIZER_STATE},
            _step('device_processor', {'device': 'cpu', 'float_dtype': None}),
        ],
    }


def vector_statistics(name: str, values: NDArray[np.floating[Any]]) -> Arrays:
    """Return LeRobot's statistics of `values` [samples, dims], under `name`."""
    samples = np.asarray(values, dtype=np.float64)
    found = {
        'count': np.array([len(samples)]),
        'max': samples.max(axis=0),
        'mean': samples.mean(axis=0),
        'min': samples.min(axis=0),
        'std': samples.std(axis=0),
    }
    for percent in (1, 10, 50, 90, 99):
        found[f'q{percent:02d}'] = np.percentile(samples, percent, axis=0)
    return {f'{name}.{key}': value.astype(np.float32) for key, value in found.items()}


def image_statistics(images: NDArray[np.uint8]) -> Arrays:
    """Return statistics [3, 1, 1] of `images` [count, height, width, 3] on a scale of 0 to 1."""
    pixels = images.reshape(-1, 3).astype(np.float64) / 255
    found = {
        'max': pixels.max(axis=0),
        'mean': pixels.mean(axis=0),
        'min': pixels.min(axis=0),
        'std': pixels.std(axis=0),
    }
    return {
        f'{CAMERA_KEY}.{key}': value.astype(np.float32).reshape(3, 1, 1)
        for key, value in found.items()
    }


def write_checkpoint(folder: Path, weights: Arrays, statistics: Arrays) -> None:
    """Write the whole checkpoint into `folder`; `weights` have LeRobot's parameter names."""
    write_backbone(folder / 'backbone')
    write_json(folder / 'config.json', policy_config())
    write_json(folder / 'policy_preprocessor.json', preprocessor_config())
    write_json(folder / 'policy_postprocessor.json', postprocessor_config())
    save_file(statistics, folder / NORMALIZER_STATE)
    save_file(statistics, folder / UNNORMALIZER_STATE)
    save_file(
        {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in weights.items()},
        folder / 'model.safetensors',
    )
    write_robot_io(folder / 'robot_io.yaml')


def write_robot_io(path: Path) -> None:
    """Write what the exporter must know and a LeRobot checkpoint does not hold."""
    arm = {'joints': list(JOINTS), 'units': ['rad'] * len(JOINTS)}
    content = {
        'period_s': reach.STEP_PERIOD_S,
        'state': arm,
        'action': dict(arm, control_mode='position', first_sample_offset_steps=1),
        'cameras': [{'key': CAMERA_KEY, 'name': CAMERA}],
    }
    head = (
        '# What a LeRobot checkpoint does not say about the robot behind it.\n'
        '# Sample i of a chunk is wanted (i + first_sample_offset_steps) * period_s after the\n'
        '# observation: sample 0 is where the expert is one period later.\n'
    )
    path.write_text(head + _plain_yaml(content), encoding='utf-8')


def _features(*names: str) -> dict[str, Any]:
    known = {
        'observation.state': {'type': 'STATE', 'shape': [len(JOINTS)]},
        CAMERA_KEY: {'type': 'VISUAL', 'shape': [3, CAMERA_SIDE_PX, CAMERA_SIDE_PX]},
        'action': {'type': 'ACTION', 'shape': [len(JOINTS)]},
    }
    return {name: known[name] for name in names}


def _step(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {'registry_name': name, 'config': config}


def _plain_yaml(content: dict[str, Any]) -> str:
    """Return YAML without anchors, lists of plain values on one line."""
    return yaml.dump(content, Dumper=_PlainDumper, sort_keys=False, default_flow_style=None)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True
