# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The reference itself, where it is installed: LeRobot's policy with LeRobot's own processors.

LeRobot fixes the sizes of pi0 and pi0.5 in its code, and replaces weights that do not fit by random
ones without an error. Here it gets the sizes that the checkpoint has, and every tensor must fit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vla_deploy.core.contract import Contract
from vla_deploy.export.backbone import backbone_folder
from vla_deploy.export.checkpoint import Checkpoint
from vla_deploy.export.fixtures import Case
from vla_deploy.export.parity import compare
from vla_deploy.export.pi import model_config
from vla_deploy.export.rungs import DIRECT
from vla_deploy.export.source import CheckpointError, unreadable
from vla_deploy.models.gemma import GemmaConfig
from vla_deploy.models.pi import PiConfig
from vla_deploy.pipeline.observation import Observation

VERSIONS = ('lerobot', 'transformers', 'torch', 'tokenizers', 'numpy')
_OFFLINE = ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE')

_MAY_LACK = ('embed_tokens.weight', 'lm_head.weight')
_MAX_REASON = 300


class NoReferenceError(Exception):
    """LeRobot is not there or does not run this checkpoint; the message says why."""


@dataclass(frozen=True, eq=False)
class ReferenceRun:
    """What LeRobot gave for one case: chunk float32 [steps,padded_dim] in model space, actions
    float32 [steps,dim] in robot units; and what its model was given, by the names of recorded
    cases (images_pre, image_mask, tokens, token_mask, state_norm_pad)."""

    chunk: NDArray[np.float32]
    actions: NDArray[np.float32]
    given: dict[str, NDArray[Any]]


class LeRobotReference:
    """LeRobot's policy of a checkpoint, in float32 on the CPU: `policy`, and its processors
    `before` and `after`, which LeRobot calls pre- and postprocessor."""

    def __init__(self, checkpoint: Checkpoint, contract: Contract) -> None:
        """Load it; raises NoReferenceError, and CheckpointError for weights that are damaged."""
        with _foreign('cannot be imported'):
            factory = importlib.import_module('lerobot.policies.factory')
            configs = importlib.import_module('lerobot.configs.policies')
        with _foreign('does not load it'), _offline(), _silent():
            self.policy = _policy(checkpoint, factory, configs)
            self.before, self.after = factory.make_pre_post_processors(
                self.policy.config,
                pretrained_path=str(checkpoint.path),
                preprocessor_overrides={
                    'tokenizer_processor': {'tokenizer_name': str(checkpoint.tokenizer.parent)},
                    'device_processor': {'device': 'cpu'},
                },
            )
        self._keys = {camera.name: camera.key for camera in contract.cameras}

    def __call__(self, case: Case) -> ReferenceRun:
        """Run one case, from raw images to robot units; raises NoReferenceError."""
        with _foreign('does not run it'):
            return self._run(case)

    def _run(self, case: Case) -> ReferenceRun:
        found: list[torch.Tensor] = []
        given: dict[str, NDArray[Any]] = {}
        model = self.policy.model
        sample = model.sample_actions

        def kept(images: Any, masks: Any, *rest: Any, **named: Any) -> torch.Tensor:
            given['images_pre'] = torch.cat(list(images)).numpy()
            given['image_mask'] = torch.stack([mask.reshape(()) for mask in masks]).numpy()
            for name, value in zip(('tokens', 'token_mask', 'state_norm_pad'), rest, strict=False):
                given[name] = value[0].numpy()  # pi0.5 gets no state
            found.append(sample(images, masks, *rest, **named))
            return found[-1]

        model.sample_actions = kept  # its result before the padded dims are cut off
        try:
            with torch.no_grad(), _silent():
                batch = self.batch(case.observation)
                noise = torch.from_numpy(case.noise)[None]
                self.policy.reset()
                chunk = self.policy.predict_action_chunk(batch, noise=noise)
                actions = self.after(chunk)
        finally:
            del model.sample_actions
        return ReferenceRun(found[-1][0].float().numpy(), actions[0].float().numpy(), given)

    def batch(self, observation: Observation) -> Any:
        """Return what LeRobot's policy is given of an observation."""
        utils = importlib.import_module('lerobot.policies.utils')
        values: dict[str, Any] = {
            self._keys[name]: np.require(image, requirements='CW')  # copied only where it must be
            for name, image in observation.images.items()
        }
        values['observation.state'] = np.array(observation.state, np.float32)
        return self.before(
            utils.prepare_observation_for_inference(
                values, torch.device('cpu'), observation.instruction, ''
            )
        )


def is_installed() -> bool:
    """Say whether LeRobot is there at all."""
    return importlib.util.find_spec('lerobot') is not None


def try_lerobot(
    checkpoint: Checkpoint,
    contract: Contract,
    cases: Sequence[Case],
    progress: Callable[[str], None],
) -> tuple[list[ReferenceRun] | None, str]:
    """Run every case through LeRobot; None and the reason where that cannot be.

    Raises CheckpointError for weights that are damaged: nothing else could run them either.
    """
    runs = []
    try:
        reference = LeRobotReference(checkpoint, contract)
        with _foreign('has no version'):
            version = versions()['lerobot']
        for index, case in enumerate(cases):
            progress(f'LeRobot {version}: fixture {index + 1} of {len(cases)}')
            runs.append(reference(case))
    except NoReferenceError as error:
        return None, str(error)
    return runs, ''


def direct_summary(
    runs: Sequence[ReferenceRun], chunks: Sequence[NDArray[np.float32]]
) -> dict[str, Any]:
    """Return what the receipt says of a direct comparison; `chunks` of the torch modules."""
    figures = [
        compare(chunk, run.chunk, 'torch chunk against LeRobot')
        for run, chunk in zip(runs, chunks, strict=True)
    ]
    return {
        'kind': DIRECT,
        'reference': versions(),
        'torch_chunk_max_abs': max(figure.max_abs for figure in figures),
    }


def versions() -> dict[str, str]:
    """Return the versions that decide what the reference computes."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def _policy(checkpoint: Checkpoint, factory: Any, configs: Any) -> Any:
    config = configs.PreTrainedConfig.from_pretrained(str(checkpoint.path))
    config.device, config.compile_model = 'cpu', False
    if checkpoint.family == 'smolvla':
        folder = backbone_folder(checkpoint.path, config.vlm_model_name)
        config.vlm_model_name = str(folder or config.vlm_model_name)
        config.load_vlm_weights = False
        config.num_steps = checkpoint.config['num_steps']
        policy = factory.get_policy_class('smolvla')(config)
    else:
        config.dtype = 'float32'
        config.num_inference_steps = checkpoint.config['num_inference_steps']
        with _sizes(checkpoint):
            policy = factory.get_policy_class(checkpoint.family)(config)
    _load(policy, checkpoint.weights)
    return policy.float().eval()


def _load(policy: torch.nn.Module, path: Path) -> None:
    """Give the policy the file's tensors; raises NoReferenceError where one does not fit, and
    CheckpointError for a file that cannot be read."""
    try:
        with safe_open(path, framework='pt') as file:
            tensors = {name: file.get_tensor(name).float() for name in list(file.keys())}
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from None
    result = policy.load_state_dict(tensors, strict=False)
    # embeddings are one with the head, or the head is not there and not used
    needed = [name for name in result.missing_keys if not name.endswith(_MAY_LACK)]
    if needed or result.unexpected_keys:
        name = [*needed, *result.unexpected_keys][0]
        raise NoReferenceError(f'LeRobot does not load it: {name} does not fit')


@contextlib.contextmanager
def _sizes(checkpoint: Checkpoint) -> Iterator[None]:
    """Let LeRobot make pi0 or pi0.5 of the checkpoint's sizes."""
    sizes = model_config(checkpoint)
    name = f'lerobot.policies.{checkpoint.family}.modeling_{checkpoint.family}'
    module = importlib.import_module(name)
    replaced = {
        'get_gemma_config': lambda variant: _gemma(
            module, sizes.text if variant == 'gemma_2b' else sizes.expert
        ),
        'PaliGemmaForConditionalGenerationWithPiGemma': _vlm_maker(module, sizes),
        'PiGemmaForCausalLM': _expert_maker(module, sizes),
    }
    before = {name: getattr(module, name) for name in replaced}
    for name, value in replaced.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def _gemma(module: Any, sizes: GemmaConfig) -> Any:
    return module.GemmaConfig(
        width=sizes.hidden_size,
        depth=sizes.num_layers,
        mlp_dim=sizes.intermediate_size,
        num_heads=sizes.num_attention_heads,
        num_kv_heads=sizes.num_key_value_heads,
        head_dim=sizes.head_dim,
    )


def _vlm_maker(module: Any, sizes: PiConfig) -> Callable[..., Any]:
    original = module.PaliGemmaForConditionalGenerationWithPiGemma
    vision = {
        name: getattr(sizes.vision, name)
        for name in (field.name for field in dataclasses.fields(sizes.vision))
    }

    def make(config: Any) -> Any:
        for name, value in vision.items():
            setattr(config.vision_config, name, value)
        config.vision_config.projection_dim = sizes.text.hidden_size
        config.projection_dim = sizes.text.hidden_size
        config.text_config.vocab_size = sizes.vocab_size
        return original(config=config)

    return make


def _expert_maker(module: Any, sizes: PiConfig) -> Callable[..., Any]:
    original = module.PiGemmaForCausalLM

    def make(config: Any) -> Any:
        config.vocab_size = sizes.vocab_size
        return original(config=config)

    return make


@contextlib.contextmanager
def _foreign(does: str) -> Iterator[None]:
    """Make of whatever LeRobot raises a NoReferenceError of one line."""
    try:
        yield
    except (CheckpointError, NoReferenceError):
        raise
    # Not a list of types: LeRobot and what it calls are others' code, which raise what they like,
    # some of it (draccus' ParsingError) derived from nothing narrower.
    except Exception as error:
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:_MAX_REASON]
        raise NoReferenceError(f'LeRobot {does}: {reason}') from error


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep the hub's client from asking the network for what is named and not there."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(dict.fromkeys(_OFFLINE, '1'))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what LeRobot prints off stdout, which belongs to the result."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
