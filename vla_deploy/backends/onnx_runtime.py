# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: the provider that is asked for is the provider that runs, or it is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from vla_deploy.core.contract import Contract
from vla_deploy.pipeline.backend import BackendOptions, PolicyError, require
from vla_deploy.pipeline.bundle import GRAPHS, VARIANTS, Bundle, graphs_of

Float32 = NDArray[np.float32]
PROVIDERS = {'cpu': 'CPUExecutionProvider'}
OWN_STEP_INPUTS = ('x', 'time_embedding', 'dt')
STEP_OUTPUTS = ('x_next', 'velocity')
NOISE, CHUNK = 'noise', 'chunk'
ERROR_SEVERITY = 3
LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
)


class OnnxRuntimeBackend:
    """Runs a bundle's prefix and step graphs; keys and values go between them without a copy."""

    emits_robot_units = False

    def __init__(
        self, prefix: Path, step: Path, contract: Contract, provider: str, threads: int
    ) -> None:
        """Load both graphs; `threads` 0 means as many as the machine has cores.

        Raises PolicyError for a graph that does not load or does not fit the contract.
        """
        self._prefix = _session(prefix, provider, threads)
        self._step = _session(step, provider, threads)
        self._prefix_outputs = [output.name for output in self._prefix.get_outputs()]
        self._fed = (*OWN_STEP_INPUTS, *contract.reserved_inputs)
        self._carried = [
            node.name for node in self._step.get_inputs() if node.name not in self._fed
        ]
        _check_shapes(prefix, self._prefix.get_inputs(), _observation_shapes(contract))
        _check_step(step, self._prefix, self._step, contract)

    def prefix(
        self,
        images: Float32,
        image_mask: NDArray[np.bool_],
        tokens: NDArray[np.int64],
        token_mask: NDArray[np.bool_],
        state: Float32,
    ) -> dict[str, Any]:
        """Return the prefix's outputs by name, as runtime values that stay where they are."""
        feeds = {
            'images': images,
            'image_mask': image_mask,
            'tokens': tokens,
            'token_mask': token_mask,
            'state': state,
        }
        values = {name: ort.OrtValue.ortvalue_from_numpy(feed) for name, feed in feeds.items()}
        outputs = self._prefix.run_with_ort_values(self._prefix_outputs, values)
        by_name = dict(zip(self._prefix_outputs, outputs, strict=True))
        return {name: by_name[name] for name in self._carried}

    def step(
        self,
        prefix: dict[str, Any],
        x: Float32,
        time_embedding: Float32,
        dt: np.float32,
        *continued: Any,
    ) -> tuple[Float32, Float32]:
        """Return x + dt · velocity and velocity, as the step graph computes them."""
        values = dict(prefix)
        feeds = (x, time_embedding, np.asarray(dt), *continued)
        for name, feed in zip(self._fed, feeds, strict=True):
            values[name] = ort.OrtValue.ortvalue_from_numpy(feed)
        x_next, velocity = self._step.run_with_ort_values(list(STEP_OUTPUTS), values)
        return x_next.numpy(), velocity.numpy()


class WholeOnnxRuntimeBackend:
    """Runs a bundle's unrolled or loop graph: from observation and noise to the chunk at once.

    What needs the steps apart (a deadline, real-time chunking) it refuses with PolicyError.
    """

    emits_robot_units = False
    takes_steps_apart = False

    def __init__(self, graph: Path, contract: Contract, provider: str, threads: int) -> None:
        """Load the graph; arguments and errors as for OnnxRuntimeBackend."""
        self._graph_path = graph
        self._session = _session(graph, provider, threads)
        chunk = [contract.chunk_steps, contract.action.padded_dim]
        inputs = {**_observation_shapes(contract), NOISE: chunk}
        _check_shapes(graph, self._session.get_inputs(), inputs)
        _check_shapes(graph, self._session.get_outputs(), {CHUNK: chunk})

    def whole(
        self,
        images: Float32,
        image_mask: NDArray[np.bool_],
        tokens: NDArray[np.int64],
        token_mask: NDArray[np.bool_],
        state: Float32,
        noise: Float32,
    ) -> Float32:
        """Return the chunk, as prefix and all steps would compute it."""
        feeds = {
            'images': images,
            'image_mask': image_mask,
            'tokens': tokens,
            'token_mask': token_mask,
            'state': state,
            NOISE: noise,
        }
        chunk: Float32 = self._session.run([CHUNK], feeds)[0]
        return chunk

    def prefix(self, *inputs: Any) -> Any:
        """Raise PolicyError: the prefix is not apart from the steps."""
        raise PolicyError(
            f'{self._graph_path.name} takes all steps at once; what needs them one by one '
            "(a deadline, real-time chunking) needs variant 'split'"
        )

    step = prefix


def load(bundle: Bundle, options: BackendOptions) -> OnnxRuntimeBackend | WholeOnnxRuntimeBackend:
    """Load a bundle's graphs; raises PolicyError for options that cannot be fulfilled."""
    require('precision', options.precision, tuple(GRAPHS), 'onnx_runtime')
    require('variant', options.variant, VARIANTS, 'onnx_runtime')
    require('provider', options.provider, tuple(PROVIDERS), 'onnx_runtime')
    if options.threads is not None and options.threads < 1:
        raise PolicyError(f'threads is {options.threads}, but must be at least 1')
    graphs, contract = graphs_of(options.precision, options.provider), bundle.contract
    provider, threads = PROVIDERS[options.provider], options.threads or 0
    if options.variant == 'split':
        prefix, step = (_file(bundle, name, options) for name in (graphs.prefix, graphs.step))
        return OnnxRuntimeBackend(prefix, step, contract, provider, threads)
    if contract.reserved_inputs:
        raise PolicyError(
            f'{bundle.path}: the policy continues its previous chunk; that needs its steps one by '
            f"one, which variant {options.variant!r} does not take: use 'split'"
        )
    graph = _file(bundle, getattr(graphs, options.variant), options)
    return WholeOnnxRuntimeBackend(graph, contract, provider, threads)


def _file(bundle: Bundle, name: str, options: BackendOptions) -> Path:
    if name not in bundle.receipt['files']:
        raise PolicyError(
            f'{bundle.path}: holds no {name}, which precision {options.precision!r} with variant '
            f'{options.variant!r} needs; export again with --precision {options.precision}'
        )
    return bundle.path / name


def _session(path: Path, provider: str, threads: int) -> ort.InferenceSession:
    if provider not in ort.get_available_providers():
        available = ', '.join(ort.get_available_providers())
        raise PolicyError(f'{provider} is not in this onnxruntime; it has {available}')
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = ERROR_SEVERITY
    # an arena grows in powers of two and gives nothing back; a run makes few and large tensors
    settings.enable_cpu_mem_arena = False
    settings.enable_mem_pattern = False
    # threads that spin while they wait would take the cores from the guard
    settings.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
        session = ort.InferenceSession(path, settings, providers=[provider])
    except LOAD_ERRORS as error:
        first_line = str(error).splitlines()[0]
        raise PolicyError(f'{path}: does not load: {first_line}') from error
    running = session.get_providers()[0]
    if running != provider:
        raise PolicyError(f'{path}: runs on {running}, although {provider} was asked for')
    session.disable_fallback()
    return session


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
    path: Path, prefix: ort.InferenceSession, step: ort.InferenceSession, contract: Contract
) -> None:
    """Refuse a step graph that does not fit the prefix graph or the contract."""
    carried = {node.name: node.shape for node in prefix.get_outputs()}
    own: dict[str, list[int]] = {
        'x': [contract.chunk_steps, contract.action.padded_dim],
        'time_embedding': [contract.time_embedding.dim],
        'dt': [],
    }
    if contract.reserved_inputs:
        own |= {'prev_chunk': own['x'], 'delay': []}
    taken = {node.name for node in step.get_inputs()} - set(own)
    wanted = {name: shape for name, shape in carried.items() if name in taken} | own
    _check_shapes(path, step.get_inputs(), wanted)
    _check_shapes(path, step.get_outputs(), dict.fromkeys(STEP_OUTPUTS, own['x']))


def _check_shapes(path: Path, nodes: Any, expected: dict[str, list[int]]) -> None:
    found = {node.name: list(node.shape) for node in nodes}
    if found != expected:
        raise PolicyError(f'{path}: has {found}, but the contract leads to {expected}')
