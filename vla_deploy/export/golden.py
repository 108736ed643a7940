# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded reference cases (test/goldens) against the torch pipeline and the served bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.export.backbone import load_tokenizer
from vla_deploy.export.checkpoint import Checkpoint, read_checkpoint
from vla_deploy.export.families import family_of
from vla_deploy.export.parity import GraphRunner, action_scale, compare, compare_actions
from vla_deploy.export.torch_pipeline import ModelInputs, TorchPipeline
from vla_deploy.pipeline import Guidance, Observation, Policy
from vla_deploy.pipeline.bundle import NORMALIZER, PREFIX_GRAPH, STEP_GRAPH, TOKENIZER
from vla_deploy.pipeline.normalize import VectorNormalizer, read_statistics
from vla_deploy.pipeline.observation import check_observation
from vla_deploy.pipeline.preprocess import Preprocessor
from vla_deploy.pipeline.sampler import EulerSampler
from vla_deploy.pipeline.tokenize import PromptEncoder

GOLDENS_OF = {
    'smolvla': ('smolvla_3cam', 'smolvla_2cam_empty'),
    'pi0': ('pi0',),
    'pi05': ('pi05',),
}
DIMS = 'backbone/tiny_model_config.json'


@dataclass(frozen=True, eq=False)
class GoldenCase:
    """One recorded case: raw observation, noise float32 [steps,padded_dim], and `recorded`, the
    reference's own arrays by name (images_pre, tokens, chunk_model, chunk_robot, …).

    `guidances` are those of its guided chunks, recorded as rtc<i>/chunk_model and so on."""

    observation: Observation
    noise: NDArray[np.float32]
    recorded: dict[str, NDArray[Any]]
    guidances: tuple[Guidance, ...]

    def model_inputs(self, contract: Contract, full: bool = True) -> ModelInputs:
        """Return the tensors that the reference's model got.

        `full` pads cameras and text to the contract's static shape, with masks False.
        """
        images, image_mask = self.recorded['images_pre'], self.recorded['image_mask']
        tokens, token_mask = self.recorded['tokens'], self.recorded['token_mask']
        if full:
            slots = contract.camera_slots - len(images)
            images = np.pad(images, ((0, slots), (0, 0), (0, 0), (0, 0)), constant_values=-1.0)
            image_mask = np.pad(image_mask, (0, slots))
            rest = contract.tokenizer.max_length - len(tokens)
            tokens = np.pad(tokens, (0, rest), constant_values=contract.tokenizer.pad_token_id)
            token_mask = np.pad(token_mask, (0, rest))
        values = (images, image_mask, tokens, token_mask, self.state(contract))
        return ModelInputs(*(torch.from_numpy(value.copy()) for value in values))

    def state(self, contract: Contract) -> NDArray[np.float32]:
        """Return the normalised state, float32 [padded_dim]."""
        if 'state_norm_pad' in self.recorded:
            return self.recorded['state_norm_pad']
        state = self.recorded['state_norm']
        return np.pad(state, (0, contract.state.padded_dim - len(state)))


def golden_dims(folder: Path) -> Path | None:
    """Return the file of sizes that goes with a golden folder's checkpoint."""
    path = folder / DIMS
    return path if path.is_file() else None


def golden_checkpoint(folder: Path) -> Checkpoint:
    """Return the checkpoint of a golden folder."""
    return read_checkpoint(folder / 'checkpoint', dims=golden_dims(folder))


def golden_cases(folder: Path, contract: Contract) -> Iterator[GoldenCase]:
    """Yield the recorded cases of a golden folder."""
    described = json.loads((folder / 'cases.json').read_text(encoding='utf-8'))['cases']
    with np.load(folder / 'cases.npz', allow_pickle=False) as archive:
        for index, case in enumerate(described):
            start = f'case{index}/'
            recorded = {
                name.removeprefix(start): archive[name]
                for name in archive.files
                if name.startswith(start)
            }
            images = {
                camera.name: recorded[f'image/{camera.key}']
                for camera in contract.cameras
                if f'image/{camera.key}' in recorded
            }
            observation = Observation(images, recorded['state'], case['task'])
            guidances = tuple(
                _guidance(rtc, recorded[f'rtc{i}/prev'])
                for i, rtc in enumerate(case.get('rtc', ()))
            )
            yield GoldenCase(observation, recorded['noise'][0], recorded, guidances)


def _guidance(rtc: dict[str, Any], previous: NDArray[np.float32]) -> Guidance:
    return Guidance(
        previous,
        rtc['inference_delay'],
        rtc['execution_horizon'],
        rtc['schedule'].lower(),
        rtc['max_guidance_weight'],
    )


def compare_golden(folder: Path, bundle: Path, threads: int | None = None) -> dict[str, Any]:
    """Return figures of a golden folder, the worst over its cases.

    `bundle` is the exported `folder/checkpoint`. The torch_ and graph_ figures start from the
    reference's own model inputs, the served_ ones from raw observations. Robot-unit actions are
    divided by max(1, |mean| + 4·std) of their dimension, states by max(1, |reference|).
    """
    checkpoint = golden_checkpoint(folder)
    statistics = checkpoint.processors.statistics
    model, _ = family_of(checkpoint).load(checkpoint)
    contract = family_of(checkpoint).contract(checkpoint)
    reference = TorchPipeline(model, contract, statistics, load_tokenizer(checkpoint.tokenizer))
    runner = GraphRunner(bundle / PREFIX_GRAPH, bundle / STEP_GRAPH, threads or 0)
    policy = Policy.load(bundle, threads=threads)
    preprocess = _preprocessor(bundle, contract)
    scale = action_scale(contract, statistics)
    rows: list[dict[str, Any]] = []
    for case in golden_cases(folder, contract):
        recorded, chunk = case.recorded, case.recorded['chunk_model']
        own = case.model_inputs(contract)
        torch_chunk = reference.chunk(own, case.noise)
        graph_chunk = sample_graphs(runner, own, case.noise, reference)
        served = policy.infer(case.observation, noise=case.noise)
        torch_actions = reference.actions(torch_chunk, case.observation)
        torch_figure = compare(torch_chunk, chunk, 'torch chunk')
        served_figure = compare(served.raw, chunk, 'served chunk')
        robot = recorded['chunk_robot']
        inputs, _ = preprocess(check_observation(case.observation, contract))
        rows.append(
            {
                **_input_figures(inputs, own),
                'torch_chunk_max_abs': torch_figure.max_abs,
                'torch_actions_scaled_max_abs': compare_actions(
                    torch_actions, robot, scale
                ).max_abs,
                'graph_chunk_max_abs': compare(graph_chunk, chunk, 'graph chunk').max_abs,
                'served_chunk_max_abs': served_figure.max_abs,
                'served_actions_scaled_max_abs': compare_actions(
                    served.actions, robot, scale
                ).max_abs,
                'min_cosine': min(torch_figure.cosine, served_figure.cosine),
            }
        )
    guided = _guided_figures(folder, reference, policy, contract)
    return {'cases': len(rows), **_worst(rows), **guided}


def _guided_figures(
    folder: Path, reference: TorchPipeline, policy: Policy, contract: Contract
) -> dict[str, Any]:
    """Compare guided chunks: through torch from model inputs, served from raw observations."""
    sample = EulerSampler(contract.time_embedding, contract.denoise_steps)
    torch_errors, served_errors = [], []
    for case in golden_cases(folder, contract):
        for index, guidance in enumerate(case.guidances):
            expected = case.recorded[f'rtc{index}/chunk_model']
            step = reference.step_function(case.model_inputs(contract))
            chunk, _ = sample(step, case.noise, guidance)
            served = policy.infer(case.observation, noise=case.noise, guidance=guidance)
            torch_errors.append(compare(chunk, expected, 'guided torch chunk').max_abs)
            served_errors.append(compare(served.raw, expected, 'guided served chunk').max_abs)
    return {
        'guided_cases': len(torch_errors),
        'guided_torch_chunk_max_abs': max(torch_errors),
        'guided_served_chunk_max_abs': max(served_errors),
    }


def _preprocessor(bundle: Path, contract: Contract) -> Preprocessor:
    statistics = read_statistics(bundle / NORMALIZER)
    return Preprocessor(
        contract,
        PromptEncoder(bundle / TOKENIZER, contract.tokenizer),
        VectorNormalizer('state', contract.state, statistics),
    )


def _input_figures(inputs: Any, own: ModelInputs) -> dict[str, Any]:
    """Compare served model inputs with the reference's, padded to the static shape."""
    state = own.state.numpy()
    return {
        'tokens_equal': bool(np.array_equal(inputs.tokens, own.tokens.numpy())),
        'token_mask_equal': bool(np.array_equal(inputs.token_mask, own.token_mask.numpy())),
        'image_mask_equal': bool(np.array_equal(inputs.image_mask, own.image_mask.numpy())),
        'images_max_abs': float(np.abs(inputs.images - own.images.numpy()).max()),
        'state_scaled_max_abs': float(
            (np.abs(inputs.state - state) / np.maximum(1.0, np.abs(state))).max()
        ),
    }


def sample_graphs(
    runner: GraphRunner,
    inputs: ModelInputs,
    noise: NDArray[np.float32],
    reference: TorchPipeline,
) -> NDArray[np.float32]:
    """Return the graphs' chunk, float32 [steps,padded_dim]; `reference` has the step times."""
    prefix = runner.prefix(inputs)
    x = noise
    for time in reference.model.time_table:
        x, _ = runner.step(prefix, x, time.numpy(), -1.0 / reference.contract.denoise_steps)
    return x


def _worst(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return, over all cases: equal only if always so, the largest error, the smallest cosine."""
    worst: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if isinstance(values[0], bool):
            worst[name] = all(values)
        else:
            # NumPy's, which do not pass over NaN
            worst[name] = float(np.min(values) if name == 'min_cosine' else np.max(values))
    return worst
