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
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxscript import ir

from vla_deploy.core.contract import Contract
from vla_deploy.export.compose import compose_variants
from vla_deploy.export.graph import WeightStore
from vla_deploy.pipeline.bundle import GRAPHS

PRECISION = 'int8'


def quantize_graphs(folder: Path, contract: Contract) -> None:
    """Write the int8 graphs, split and composed, and their weights beside the float32 ones."""
    source, target = GRAPHS['fp32'], GRAPHS[PRECISION]
    weights = folder / target.weights
    with open(weights, 'wb') as file:
        store = WeightStore(file, weights)
        for name, new_name in ((source.prefix, target.prefix), (source.step, target.step)):
            _quantize(folder / name, folder / new_name, store)
    compose_variants(folder, target, contract)


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
