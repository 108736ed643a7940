# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Sessions of ONNX Runtime: where they compute, and runs between fixed places on that device.

The providers that are asked for are the providers that run. The runtime itself falls back in two
ways without an error: a provider whose libraries do not load is left out, and nodes that a provider
has no kernel for go to the CPU. Both are refused here when a session is made.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from vla_deploy.backends.device_errors import told
from vla_deploy.pipeline.backend import BackendOptions, PolicyError, require
from vla_deploy.pipeline.bundle import ENGINES, Bundle

CPU = 'CPUExecutionProvider'
CUDA = 'CUDAExecutionProvider'
TENSORRT = 'TensorrtExecutionProvider'
PROVIDERS = ('cpu', 'cuda', 'tensorrt')
PRECISIONS = {
    'cpu': ('fp32', 'bf16', 'fp16', 'int8'),
    'cuda': ('fp32', 'tf32', 'bf16', 'fp16'),
    # TensorRT multiplies float32 in tf32
    'tensorrt': ('tf32', 'bf16', 'fp16'),
}
ERROR_SEVERITY = 3
DTYPES = {'tensor(float)': np.float32, 'tensor(bool)': np.bool_, 'tensor(int64)': np.int64}
RUN_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where graphs are computed.

    `providers`: names and options as ONNX Runtime has them; nothing else may run a node. `device`:
    where inputs and outputs lie. `replays`: a run is captured as a CUDA graph at its first time.
    """

    providers: tuple[tuple[str, Mapping[str, str]], ...]
    device: str
    replays: bool
    threads: int


def placement(bundle: Bundle, options: BackendOptions) -> Placement:
    """Return where a bundle's graphs are computed; raises PolicyError for what is not possible.

    A loop holds a graph of its own, which no CUDA graph can replay.
    """
    require('provider', options.provider, PROVIDERS, 'onnx_runtime')
    require(
        'precision', options.precision, PRECISIONS[options.provider],
        f'onnx_runtime on {options.provider}',
    )
    if options.provider == 'cpu':
        return Placement(((CPU, {}),), 'cpu', replays=False, threads=options.threads or 0)
    replays = options.variant != 'loop'
    given: list[tuple[str, Mapping[str, str]]] = []
    if options.provider == 'tensorrt':
        engines = bundle.path / ENGINES / bundle.model_sha256
        given.append((TENSORRT, tensorrt_options(options.precision, engines, replays)))
    if options.provider == 'cuda' or not replays:
        # TensorRT replays one engine and no node of another provider, so that it gets no help
        cuda = cuda_options(options.precision, replays and options.provider == 'cuda')
        given.append((CUDA, cuda))
    return Placement(tuple(given), 'cuda', replays, threads=options.threads or 1)


def cuda_options(precision: str, replays: bool) -> dict[str, str]:
    """Return the options of the CUDA provider, which by itself multiplies float32 in tf32."""
    return {
        'device_id': '0',
        'use_tf32': '1' if precision == 'tf32' else '0',
        'enable_cuda_graph': '1' if replays else '0',
        'arena_extend_strategy': 'kSameAsRequested',
        'cudnn_conv_algo_search': 'HEURISTIC',
    }


def tensorrt_options(precision: str, engines: Path, replays: bool) -> dict[str, str]:
    """Return the options of the TensorRT provider, whose engines are kept in `engines`."""
    return {
        'device_id': '0',
        'trt_engine_cache_enable': '1',
        'trt_engine_cache_path': str(engines),
        'trt_timing_cache_enable': '1',
        'trt_timing_cache_path': str(engines),
        'trt_fp16_enable': '1' if precision == 'fp16' else '0',
        'trt_bf16_enable': '1' if precision == 'bf16' else '0',
        'trt_layer_norm_fp32_fallback': '1',
        'trt_cuda_graph_enable': '1' if replays else '0',
    }


def open_session(path: Path, where: Placement) -> ort.InferenceSession:
    """Load a graph where it is to be computed, and nowhere else.

    Raises PolicyError, one line, for a provider that is missing or does not start, a node that it
    cannot compute, and a graph that does not load.
    """
    asked = [name for name, _ in where.providers]
    for name in asked:
        if name not in ort.get_available_providers():
            available = ', '.join(ort.get_available_providers())
            raise PolicyError(f'{name} is not in this onnxruntime; it has {available}')
    settings = _settings(where)
    for name, options in where.providers:
        if name == TENSORRT:
            _make_folder(Path(options['trt_engine_cache_path']))
    with told(f'{path}: does not load', *RUN_ERRORS):
        session = ort.InferenceSession(
            path, settings, providers=asked,
            provider_options=[dict(options) for _, options in where.providers],
            enable_fallback=0,  # by itself it would try again with other providers
        )
    running = session.get_providers()
    if running[: len(asked)] != asked:
        raise PolicyError(
            f'{path}: runs on {", ".join(running)}, although {", ".join(asked)} was asked for; '
            'check nvidia-smi, the driver, and that the libraries of CUDA, cuDNN and, for '
            'tensorrt, TensorRT that this onnxruntime was built for are on LD_LIBRARY_PATH'
        )
    session.disable_fallback()
    return session


def _settings(where: Placement) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = where.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = ERROR_SEVERITY
    # an arena grows in powers of two and gives nothing back; a run makes few and large tensors
    settings.enable_cpu_mem_arena = False
    settings.enable_mem_pattern = False
    # threads that spin while they wait would take the cores from the guard
    settings.add_session_config_entry('session.intra_op.allow_spinning', '0')
    if where.device != 'cpu':
        # a node without a kernel on the GPU is an error, not a copy to the CPU and back
        settings.add_session_config_entry('session.disable_cpu_ep_fallback', '1')
    return settings


def _make_folder(path: Path) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise PolicyError(
            f'{path}: cannot be made ({error.strerror}), but TensorRT keeps its engines there; '
            'make the bundle writable'
        ) from error


class BoundGraph:
    """A session whose inputs and outputs have fixed places on its device.

    Outputs of one graph can be inputs of another: they then stay where they are.
    """

    def __init__(self, path: Path, where: Placement) -> None:
        """Load a graph; raises PolicyError as `open_session` does."""
        self._path, self._where = path, where
        self.session = open_session(path, where)
        self.inputs: list[Any] = self.session.get_inputs()
        self.outputs: list[Any] = self.session.get_outputs()
        self._places: dict[str, ort.OrtValue] = {}
        # what is captured belongs to the thread that captured it
        self._worker = ThreadPoolExecutor(1, 'onnx_runtime') if where.replays else None
        self._binding: Any = None

    def bind(self, given: Mapping[str, ort.OrtValue]) -> None:
        """Make the places, once the shapes have been checked; `given` are inputs that have one.

        Raises PolicyError where the device has no room.
        """
        self._places |= given
        with told(f'{self._path}: does not fit on the device', *RUN_ERRORS):
            self._binding = self.session.io_binding()
            for node in self.inputs:
                if node.name not in self._places:
                    self._places[node.name] = self._place(node)
                self._binding.bind_ortvalue_input(node.name, self._places[node.name])
            for node in self.outputs:
                self._places[node.name] = self._place(node)
                self._binding.bind_ortvalue_output(node.name, self._places[node.name])

    def place(self, name: str) -> ort.OrtValue:
        """Return the place of an input or output."""
        return self._places[name]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Copy `feeds` to their places and compute; the outputs are in theirs afterwards.

        Raises PolicyError, which says what to do, where the device fails.
        """
        with told(f'{self._path}: cannot be computed', *RUN_ERRORS):
            if self._worker is None:
                self._run(feeds)
            else:
                self._worker.submit(self._run, feeds).result()

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        for name, array in feeds.items():
            self._places[name].update_inplace(np.asarray(array, order='C'))
        self.session.run_with_iobinding(self._binding)

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a copy of an output; raises PolicyError as `run` does."""
        with told(f'{self._path}: cannot be read from the device', *RUN_ERRORS):
            return np.array(self._places[name].numpy())

    def _place(self, node: Any) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(
            list(node.shape), DTYPES[node.type], self._where.device, 0
        )
