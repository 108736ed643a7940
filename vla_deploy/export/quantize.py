# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""int8 for CPUs: the same graphs with the weights of their matrix products in 8 bits.

Each column of a weight has a scale of its own, its largest magnitude over 127, and no offset.
Activations are quantised as they come (dynamic quantisation, unsigned with an offset, one scale a
tensor), so that no calibration data are needed. Everything else stays float32, and float32 tensors
stay where they are: in the weights file of the float32 graphs. Weights are read and written one
after the other, so that no more than one of them is in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from vla_deploy.core.contract import Contract
from vla_deploy.export.compose import compose_variants
from vla_deploy.export.graph_edit import without_unread
from vla_deploy.export.weight_store import INLINE_BYTES, WeightStore, mapped_values
from vla_deploy.pipeline.bundle import GRAPHS

PRECISION = 'int8'
LARGEST = 127  # of an 8-bit weight, either sign


def quantize_graphs(folder: Path, contract: Contract) -> None:
    """Write the int8 graphs, split and composed, and their weights beside the float32 ones."""
    source, target = GRAPHS['fp32'], GRAPHS[PRECISION]
    weights = folder / target.weights
    with open(weights, 'wb') as file:
        store = WeightStore(file, weights)
        for name, new_name in ((source.prefix, target.prefix), (source.step, target.step)):
            model = onnx.load(folder / name, load_external_data=False)
            _quantize(model, folder, store)
            (folder / new_name).write_bytes(model.SerializeToString(deterministic=True))
    compose_variants(folder, target, contract)


def quantize_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight [rows,columns] in 8 bits and the scale of each column [columns], so that
    the weight is about their product; a column of zeros has scale 1."""
    bound = np.maximum(weight.max(axis=0), -weight.min(axis=0)).astype(np.float64)
    scale = (bound / LARGEST).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 1.0
    return np.rint(weight / scale).astype(np.int8), scale


def _quantize(model: ModelProto, folder: Path, store: WeightStore) -> None:
    """Give every product with a constant the constant in 8 bits."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes, done = list(graph.node), set()
    del graph.node[:]
    for node in nodes:
        if node.op_type != 'MatMul' or node.input[1] not in constants:
            graph.node.append(node)
            continue
        activation, weight = node.input
        if weight not in done:
            graph.initializer.extend(_in_8_bits(constants[weight], folder, store))
        if activation not in done:
            made = [f'{activation}/{part}' for part in ('uint8', 'scale', 'zero_point')]
            graph.node.append(
                helper.make_node('DynamicQuantizeLinear', [activation], made, name=made[0])
            )
        done |= {activation, weight}
        graph.node.extend(_product(node))
    without_unread(model)


def _in_8_bits(tensor: TensorProto, folder: Path, store: WeightStore) -> list[TensorProto]:
    """Return the weight and the scales of its columns as a graph holds them."""
    external = tensor.data_location == TensorProto.EXTERNAL
    values = mapped_values(tensor, folder) if external else numpy_helper.to_array(tensor)
    tensors, columns = [], quantize_columns(values)
    content: NDArray[Any]
    for part, content in (('int8', columns[0]), ('scale', columns[1])):
        inline = numpy_helper.from_array(content, f'{tensor.name}/{part}')
        if content.nbytes >= INLINE_BYTES:
            inline = store.reference(inline.name, inline.data_type, content)
        tensors.append(inline)
    return tensors


def _product(node: NodeProto) -> list[NodeProto]:
    """Return the product of quantised factors, in float32 again, that stands for a MatMul."""
    activation, weight = node.input
    result = node.output[0]
    return [
        helper.make_node(
            'MatMulInteger',
            [f'{activation}/uint8', f'{weight}/int8', f'{activation}/zero_point'],
            [f'{result}/int32'],
            name=f'{node.name}/int32',
        ),
        helper.make_node(
            'Cast', [f'{result}/int32'], [f'{result}/float'], name=f'{node.name}/float',
            to=TensorProto.FLOAT,
        ),
        helper.make_node(
            'Mul', [f'{activation}/scale', f'{weight}/scale'], [f'{result}/product_scale'],
            name=f'{node.name}/product_scale',
        ),
        helper.make_node(
            'Mul', [f'{result}/float', f'{result}/product_scale'], [result], name=node.name
        ),
    ]
