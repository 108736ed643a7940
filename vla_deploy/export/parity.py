# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The parity ladder up to the pipeline, as full-precision figures.

Rung 1: the exported graphs on ONNX Runtime's CPU provider against the torch modules, from the
same model inputs. Rung 2: the served pipeline against the torch pipeline, from raw observations
to robot-unit actions. Rung 3 is `Policy.self_test`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.export.graph import PREFIX_INPUTS, PREFIX_OUTPUTS, STEP_OUTPUTS
from vla_deploy.export.torch_pipeline import ModelInputs
from vla_deploy.models.families import FlowPolicy

Array = NDArray[np.float32]
DEFAULT_THRESHOLD = 1e-4
STRICT_THRESHOLD = 1e-5
MIN_COSINE = 0.9999999


class GateError(Exception):
    """A bundle is not the policy within the thresholds; `failures` says where, a line each."""

    def __init__(self, failures: list[str]) -> None:
        super().__init__('; '.join(failures))
        self.failures = failures


@dataclass(frozen=True)
class Figure:
    """Largest absolute difference over all elements, and the cosine of the two vectors."""

    max_abs: float
    cosine: float

    def passes(self, threshold: float) -> bool:
        """Say whether the difference is below the threshold and the direction is the same."""
        return self.max_abs < threshold and self.cosine >= MIN_COSINE


def compare(actual: NDArray[np.floating], expected: NDArray[np.floating], what: str) -> Figure:
    """Return the figure over every element.

    Raises GateError, which names `what`, where a shape differs or a number is not finite.
    """
    if actual.shape != expected.shape:
        raise GateError([f'{what}: shape {actual.shape} is not {expected.shape}'])
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        raise GateError([f'{what}: holds NaN or infinity'])
    a = actual.astype(np.float64).ravel()
    b = expected.astype(np.float64).ravel()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / norms if norms > 0 else float(np.array_equal(a, b))
    return Figure(float(np.abs(a - b).max()), cosine)


def worst(figures: Iterable[Figure]) -> Figure:
    """Return the largest difference and the smallest cosine of several figures."""
    listed = list(figures)
    return Figure(max(f.max_abs for f in listed), min(f.cosine for f in listed))


@dataclass(frozen=True)
class GraphParity:
    """Rung 1 of one fixture.

    key, value: the prefix graph alone. velocity: the step graph alone, over all steps, each from
    the torch modules' own x. chunk: both graphs through all Euler steps.
    """

    key: Figure
    value: Figure
    velocity: Figure
    chunk: Figure


class GraphRunner:
    """Both graphs of a bundle folder on ONNX Runtime's CPU provider."""

    def __init__(self, prefix: Path, step: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = False  # as the backend that serves
        options.enable_mem_pattern = False
        providers = ['CPUExecutionProvider']
        self._prefix = onnxruntime.InferenceSession(str(prefix), options, providers=providers)
        self._step = onnxruntime.InferenceSession(str(step), options, providers=providers)

    def prefix(self, inputs: ModelInputs) -> dict[str, NDArray[np.generic]]:
        """Return the prefix graph's outputs by name."""
        feed = {name: getattr(inputs, name).numpy() for name in PREFIX_INPUTS}
        outputs = self._prefix.run(list(PREFIX_OUTPUTS), feed)
        return dict(zip(PREFIX_OUTPUTS, outputs, strict=True))

    def step(
        self, prefix: Mapping[str, NDArray[np.generic]], x: Array, time: Array, dt: float
    ) -> tuple[Array, Array]:
        """Return x + dt·v and v, float32 [steps,padded_dim]."""
        feed = {**prefix, 'x': x, 'time_embedding': time, 'dt': np.array(dt, np.float32)}
        x_next, velocity = self._step.run(list(STEP_OUTPUTS), feed)
        return x_next, velocity


@dataclass(frozen=True, eq=False)
class TorchRun:
    """What the torch modules made of one set of model inputs.

    prefix: keys, values and mask by name. times: the embedding of each Euler step, [steps,dim].
    x: what each step began with, and after the last the chunk, [steps+1,chunk,padded_dim].
    velocity: [steps,chunk,padded_dim].
    """

    inputs: ModelInputs
    prefix: Mapping[str, NDArray[np.generic]]
    times: Array
    x: Array
    velocity: Array

    @property
    def chunk(self) -> Array:
        """The model-space chunk, float32 [chunk,padded_dim]."""
        return self.x[-1]


@torch.no_grad()
def run_torch(model: FlowPolicy, inputs: ModelInputs, noise: Array) -> TorchRun:
    """Run the torch modules, and keep what the graphs are compared with."""
    prefix = model.prefix(*(getattr(inputs, name)[None] for name in PREFIX_INPUTS))
    x = torch.from_numpy(noise)[None]
    states, velocities = [x[0].numpy()], []
    for time in model.time_table:
        x, velocity = model.step(
            prefix.key, prefix.value, prefix.mask, x, time[None], -1.0 / model.config.num_steps
        )
        states.append(x[0].numpy())
        velocities.append(velocity[0].numpy())
    outputs = (prefix.key, prefix.value, prefix.mask)
    return TorchRun(
        inputs,
        {name: value.numpy() for name, value in zip(PREFIX_OUTPUTS, outputs, strict=True)},
        model.time_table.numpy(),
        np.stack(states),
        np.stack(velocities),
    )


def graph_parity(runner: GraphRunner, run: TorchRun) -> GraphParity:
    """Run rung 1 from the model inputs of a run of the torch modules; raises GateError."""
    ran = runner.prefix(run.inputs)
    key = compare(ran['key'], run.prefix['key'], 'key')
    value = compare(ran['value'], run.prefix['value'], 'value')
    dt = -1.0 / len(run.times)
    x_graph = run.x[0]
    velocities = []
    for time, x, expected in zip(run.times, run.x, run.velocity, strict=False):
        _, velocity = runner.step(run.prefix, x, time, dt)
        x_graph, _ = runner.step(ran, x_graph, time, dt)
        velocities.append(compare(velocity, expected, 'velocity'))
    return GraphParity(key, value, worst(velocities), compare(x_graph, run.chunk, 'chunk'))


def action_scale(contract: Contract, statistics: Mapping[str, Array]) -> NDArray[np.float64]:
    """Return the size of each action dimension in robot units, float64 [dim], at least 1.

    |mean| + 4·std, or the larger bound of a range: what an error is measured against.
    """
    mode = contract.action.normalization.mode
    if mode == 'mean_std':
        size = np.abs(statistics['action.mean']) + 4 * statistics['action.std']
    elif mode == 'identity':
        size = np.ones(contract.action.dim, np.float32)
    else:
        names = ('q01', 'q99') if mode == 'quantiles' else ('min', 'max')
        size = np.maximum(*(np.abs(statistics[f'action.{name}']) for name in names))
    return np.maximum(1.0, size.astype(np.float64))


def compare_actions(
    actual: NDArray[np.floating], expected: NDArray[np.floating], scale: NDArray[np.float64]
) -> Figure:
    """Return the figure of robot-unit actions [steps,dim], each dimension divided by `scale`."""
    return compare(actual / scale, expected / scale, 'actions')
