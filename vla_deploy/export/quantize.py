# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""int8 for CPUs: the same graphs with the weights of their matrix products in 8 bits.

Activations are quantised as they come (dynamic quantisation), so that no calibration data are
needed. Everything else stays float32, and float32 tensors stay where they are: in the weights
file of the float32 graphs.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxscript import ir

from vla_deploy.core.contract import Contract
from vla_deploy.export.compose import compose_variants
from vla_deploy.export.fixtures import Case
from vla_deploy.export.graph import WeightStore
from vla_deploy.export.parity import Figure, action_scale, compare, compare_actions, worst
from vla_deploy.export.rungs import Progress
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.bundle import GRAPHS, threshold_name

PRECISION = 'int8'
# The gate against float32: a coarser result is another policy, not a faster one.
MIN_COSINE = 0.999
MAX_ACTION_ERROR = 0.05  # of the size of a dimension in robot units
# The serving machine may be so much worse than the exporting one, as for the other precisions.
TARGET_MARGIN = 1.25


@dataclass(frozen=True, eq=False)
class Int8Parity:
    """int8 against the float32 reference over all fixtures.

    chunk: model space. actions: robot units divided by the size of each dimension.
    action_error: the largest error of each dimension, in its robot unit. raw: the chunks.
    """

    chunk: Figure
    actions: Figure
    action_error: tuple[float, ...]
    raw: tuple[NDArray[np.float32], ...]


def quantize_graphs(folder: Path, contract: Contract) -> None:
    """Write the int8 graphs, split and composed, and their weights beside the float32 ones."""
    source, target = GRAPHS['fp32'], GRAPHS[PRECISION]
    weights = folder / target.weights
    with open(weights, 'wb') as file:
        store = WeightStore(file, weights)
        for name, new_name in ((source.prefix, target.prefix), (source.step, target.step)):
            _quantize(folder / name, folder / new_name, store)
    compose_variants(folder, target, contract)


def run_int8(
    folder: Path,
    contract: Contract,
    cases: Sequence[Case],
    chunks: Sequence[NDArray[np.float32]],
    actions: Sequence[NDArray[np.float32]],
    statistics: Mapping[str, NDArray[np.float32]],
    threads: int | None,
    progress: Progress,
) -> Int8Parity:
    """Serve every case at int8 from a sealed bundle and compare with what is expected.

    `chunks` float32 [steps,padded_dim] and `actions` float32 [steps,dim] of the float32
    reference. Raises GateError where a number is not finite.
    """
    policy = Policy.load(folder, precision=PRECISION, threads=threads)
    scale = action_scale(contract, statistics)
    raw, in_model, in_robot = [], [], []
    error = np.zeros(contract.action.dim)
    for index, case in enumerate(cases):
        progress(f'rung 3, int8: fixture {index + 1} of {len(cases)}')
        served = policy.infer(case.observation, noise=case.noise)
        raw.append(served.raw)
        in_model.append(compare(served.raw, chunks[index], 'int8 chunk'))
        in_robot.append(compare_actions(served.actions, actions[index], scale))
        error = np.maximum(error, np.abs(served.actions - actions[index]).max(axis=0))
    return Int8Parity(worst(in_model), worst(in_robot), tuple(error.tolist()), tuple(raw))


def int8_failures(parity: Int8Parity) -> list[str]:
    """Return one line for each figure that misses the gate."""
    lines = []
    if not parity.chunk.cosine >= MIN_COSINE:
        lines.append(f'int8, chunk: cosine {parity.chunk.cosine!r} (at least {MIN_COSINE!r})')
    if not parity.actions.max_abs <= MAX_ACTION_ERROR:
        lines.append(
            f'int8, actions: max_abs {parity.actions.max_abs!r} of the size of a dimension '
            f'(at most {MAX_ACTION_ERROR!r})'
        )
    return lines


def int8_thresholds(parity: Int8Parity) -> dict[str, float]:
    """Return what the receipt holds the serving machine to."""
    return {
        threshold_name(PRECISION): TARGET_MARGIN * parity.chunk.max_abs,
        'int8_min_cosine': MIN_COSINE,
        'int8_actions_scaled_max_abs': MAX_ACTION_ERROR,
    }


def _quantize(path: Path, target: Path, store: WeightStore) -> None:
    model = onnx.load(path)
    model.graph.ClearField('value_info')  # shape inference of the quantiser stumbles over it
    kept = {
        tensor.name: tensor
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, _quiet():
        written = Path(scratch) / 'quantized.onnx'
        quantize_dynamic(
            model,
            str(written),
            op_types_to_quantize=['MatMul'],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={'MatMulConstBOnly': True},
        )
        del model
        quantized = ir.load(written)
        for name in kept.keys() & quantized.graph.initializers.keys():
            # holds the place, so that the tensor is not written a second time
            quantized.graph.initializers[name].const_value = ir.tensor([0.0], name=name)
        store.move_out(quantized)
        proto = ir.to_proto(quantized)
    for tensor in proto.graph.initializer:
        if tensor.name in kept:
            tensor.CopyFrom(kept[tensor.name])
    proto.graph.ClearField('value_info')
    target.write_bytes(proto.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice off the terminal; its errors are exceptions."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
