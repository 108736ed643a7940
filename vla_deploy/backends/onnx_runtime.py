# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: a bundle's graphs on the CPU, on CUDA or through TensorRT.

Whatever the provider, inputs and outputs have fixed places on its device, and keys and values go
from one graph to the other without leaving it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.backends.onnx_session import BoundGraph, Placement, placement
from vla_deploy.core.contract import Contract
from vla_deploy.pipeline.backend import (
    BackendOptions,
    ModelInputs,
    PolicyError,
    require,
    require_single,
)
from vla_deploy.pipeline.bundle import VARIANTS, Bundle, graphs_of

Float32 = NDArray[np.float32]
OWN_STEP_INPUTS = ('x', 'time_embedding', 'dt')
STEP_OUTPUTS = ('x_next', 'velocity')
NOISE, CHUNK = 'noise', 'chunk'


class OnnxRuntimeBackend:
    """Runs a bundle's prefix and step graphs; `prefix` invalidates what an earlier one returned."""

    emits_robot_units = False

    def __init__(self, prefix: Path, step: Path, contract: Contract, where: Placement) -> None:
        """Load both graphs.

        Raises PolicyError for a graph that does not load there or does not fit the contract.
        """
        self._prefix, self._step = BoundGraph(prefix, where), BoundGraph(step, where)
        self._fed = (*OWN_STEP_INPUTS, *contract.reserved_inputs)
        _check_shapes(prefix, self._prefix.inputs, _observation_shapes(contract))
        _check_step(step, self._prefix, self._step, contract)
        self._prefix.bind({})
        own = {node.name for node in self._step.inputs} - set(self._fed)
        self._step.bind({name: self._prefix.place(name) for name in own})
        self._prefixes = 0

    def prefix(self, inputs: ModelInputs) -> int:
        """Compute keys and values, which stay where the step reads them; returns the prefix's
        number."""
        self._prefix.run(inputs._asdict())
        self._prefixes += 1
        return self._prefixes

    def step(
        self,
        prefix: int,
        x: Float32,
        time_embedding: Float32,
        dt: np.float32,
        *continued: Any,
    ) -> tuple[Float32, Float32]:
        """Return x + dt · velocity and velocity; raises PolicyError for an earlier prefix."""
        if prefix != self._prefixes:
            raise PolicyError('the keys and values of this prefix have been overwritten')
        feeds = (x, time_embedding, np.asarray(dt), *continued)
        self._step.run(dict(zip(self._fed, feeds, strict=True)))
        x_next, velocity = (self._step.read(name) for name in STEP_OUTPUTS)
        return x_next, velocity


class WholeOnnxRuntimeBackend:
    """Runs a bundle's unrolled or loop graph: from observation and noise to the chunk at once.

    What needs the steps apart (a deadline, real-time chunking) it refuses with PolicyError.
    """

    emits_robot_units = False
    takes_steps_apart = False

    def __init__(self, graph: Path, contract: Contract, where: Placement) -> None:
        """Load the graph; errors as for OnnxRuntimeBackend."""
        self._graph_path = graph
        self._graph = BoundGraph(graph, where)
        chunk = [contract.chunk_steps, contract.action.padded_dim]
        inputs = {**_observation_shapes(contract), NOISE: chunk}
        _check_shapes(graph, self._graph.inputs, inputs)
        _check_shapes(graph, self._graph.outputs, {CHUNK: chunk})
        self._graph.bind({})

    def whole(self, inputs: ModelInputs, noise: Float32) -> Float32:
        """Return the chunk, as prefix and all steps would compute it."""
        self._graph.run({**inputs._asdict(), NOISE: noise})
        return self._graph.read(CHUNK)

    def prefix(self, *inputs: Any) -> Any:
        """Raise PolicyError: the prefix is not apart from the steps."""
        raise PolicyError(
            f'{self._graph_path.name} takes all steps at once; what needs them one by one '
            "(a deadline, real-time chunking) needs variant 'split'"
        )

    step = prefix


def load(bundle: Bundle, options: BackendOptions) -> OnnxRuntimeBackend | WholeOnnxRuntimeBackend:
    """Load a bundle's graphs; raises PolicyError for options that cannot be fulfilled."""
    require('variant', options.variant, VARIANTS, 'onnx_runtime')
    require_single(options, 'onnx_runtime')
    where = placement(bundle, options)
    graphs, contract = graphs_of(options.precision, options.provider), bundle.contract
    if options.variant == 'split':
        prefix, step = (_file(bundle, name, options) for name in (graphs.prefix, graphs.step))
        return OnnxRuntimeBackend(prefix, step, contract, where)
    if contract.reserved_inputs:
        raise PolicyError(
            f'{bundle.path}: the policy continues its previous chunk; that needs its steps one by '
            f"one, which variant {options.variant!r} does not take: use 'split'"
        )
    graph = _file(bundle, getattr(graphs, options.variant), options)
    return WholeOnnxRuntimeBackend(graph, contract, where)


def _file(bundle: Bundle, name: str, options: BackendOptions) -> Path:
    if name not in bundle.receipt['files']:
        raise PolicyError(
            f'{bundle.path}: holds no {name}, which precision {options.precision!r} with variant '
            f'{options.variant!r} needs; export again with --precision {options.precision}'
        )
    return bundle.path / name


def _observation_shapes(contract: Contract) -> dict[str, list[int]]:
    text, image = contract.tokenizer, contract.image
    return {
        'images': [contract.camera_slots, 3, image.height, image.width],
        'image_mask': [contract.camera_slots],
        'tokens': [text.max_length],
        'token_mask': [text.max_length],
        'state': [contract.state.padded_dim],
    }


def _check_step(
    path: Path, prefix: BoundGraph, step: BoundGraph, contract: Contract
) -> None:
    """Refuse a step graph that does not fit the prefix graph or the contract."""
    carried = {node.name: node.shape for node in prefix.outputs}
    own: dict[str, list[int]] = {
        'x': [contract.chunk_steps, contract.action.padded_dim],
        'time_embedding': [contract.time_embedding.dim],
        'dt': [],
    }
    if contract.reserved_inputs:
        own |= {'prev_chunk': own['x'], 'delay': []}
    taken = {node.name for node in step.inputs} - set(own)
    wanted = {name: shape for name, shape in carried.items() if name in taken} | own
    _check_shapes(path, step.inputs, wanted)
    _check_shapes(path, step.outputs, dict.fromkeys(STEP_OUTPUTS, own['x']))


def _check_shapes(path: Path, nodes: Any, expected: dict[str, list[int]]) -> None:
    found = {node.name: list(node.shape) for node in nodes}
    if found != expected:
        raise PolicyError(f'{path}: has {found}, but the contract leads to {expected}')
