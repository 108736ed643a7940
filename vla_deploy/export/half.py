# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""bf16 and fp16: the same graphs with the products of their large weights in 16 bits; tf32, fp8.

Both factors of such a product and its result are rounded to 16 bits; sums, norms, softmax,
rotations, everything that comes from the flow time, and the projections of states and actions stay
float32. On a GPU queries, keys and values are rounded as well where attention is one node, which
keeps scores, softmax and sums in float32 inside; other attention stays float32. `as_reference`
rounds the torch modules where LeRobot's SmolVLA does at bf16: factors and results of every linear
layer and of the vision tower's patches, and the residual stream behind attention and MLP. That
gives the error that the policy itself has at the precision.

On CPUs ONNX Runtime has no bf16 products, and leaves out roundings to fp16. For them there is a
second form of the graphs over the same weights: it rounds at the same places and multiplies in
float32, so that a bundle for a GPU can be proven anywhere.

tf32 has no graphs of its own: it is how a GPU multiplies the float32 ones if it is told to. The
reference's error is there that of its torch modules with all factors cut to tf32.

fp8 has none either: it is served from the bundle's weights. The reference is there the one at bf16,
with both factors of the products of the language layers' MLPs rounded to float8 (e4m3), by a scale
for each row of a weight and for each token.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vla_deploy.core.contract import Contract
from vla_deploy.export.attention import ByRepeat, GroupedAttention
from vla_deploy.export.compose import compose_variants
from vla_deploy.export.fuse import fused
from vla_deploy.export.graph_edit import Graph, without_unread
from vla_deploy.export.parity import GateError
from vla_deploy.export.weight_store import WeightStore, mapped_values
from vla_deploy.models.gemma import GemmaLayer
from vla_deploy.models.language import DecoderLayer
from vla_deploy.models.vision import VisionEmbeddings, VisionLayer
from vla_deploy.pipeline.bundle import FP8, GRAPHS, TF32, Graphs, graphs_of

DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16, FP8: torch.bfloat16}
_ONNX_DTYPES = {'bf16': TensorProto.BFLOAT16, 'fp16': TensorProto.FLOAT16}
BLOCKS = (VisionLayer, DecoderLayer, GemmaLayer)
REFERENCES = (*DTYPES, TF32)  # precisions that the reference can be run at
# Magnitudes: of float8, and what is told from none. These and the rounding are written again on
# purpose: the reference is what the backend's own (`backends.quantised`) is held to.
FP8_LARGEST, FP8_SMALLEST = 448.0, 1e-30
# of the language model, beside which there is an expert
FP8_LAYERS = re.compile(
    r'\.(?:text_model|language_model)\.layers\.\d+\.mlp\.(?:gate|up|down)_proj$'
)
TF32_MASK = -1 << 13  # matrix units read no further than 10 bits of the mantissa
# Of each product, how many of its first arguments are factors.
_PRODUCTS = {
    F.linear: 2, F.conv2d: 2, F.scaled_dot_product_attention: 3,
    torch.matmul: 2, Tensor.matmul: 2, Tensor.__matmul__: 2,
}
ATTENTION = ('MultiHeadAttention',)  # softmax and sums inside are float32
GATES = ('Sigmoid', 'Mul', 'Gelu')  # between products, of results that are in 16 bits already
# What only moves values: the precisions in which GPUs can, and which of so many inputs these are.
MOVES: dict[str, tuple[tuple[str, ...], Callable[[int], range]]] = {
    'Concat': (tuple(_ONNX_DTYPES), range),
    'Gather': (tuple(_ONNX_DTYPES), lambda count: range(1)),
    'Reshape': (tuple(_ONNX_DTYPES), lambda count: range(1)),
    'Transpose': (tuple(_ONNX_DTYPES), range),
    'Where': (('fp16',), lambda count: range(1, count)),
}
# Parts of names of layers that stay float32.
KEPT = ('time_mlp', 'action_in_proj', 'action_out_proj', 'state_proj', '.dense.')


def write_half_graphs(folder: Path, contract: Contract, precision: str) -> None:
    """Write the graphs of `precision`, split and composed, beside the float32 ones.

    Raises GateError for a weight that fp16 cannot hold.
    """
    source, target = GRAPHS['fp32'], GRAPHS[precision]
    on_gpu, on_cpu = graphs_of(precision, 'cuda'), graphs_of(precision, 'cpu')
    with open(folder / target.weights, 'wb') as file:
        store = WeightStore(file, folder / target.weights)
        for name, written in ((source.prefix, 'prefix'), (source.step, 'step')):
            model = onnx.load(folder / name, load_external_data=False)
            weights = _store_weights(model, folder, precision, store)
            _write(folder, target, written, _rewritten(model, weights, precision, widened=False))
            attention = GroupedAttention()
            together = fused(model, attention)
            weights |= _store_laid_out(model, attention.weights, folder, precision, store)
            for graphs, widened in ((on_gpu, False), (on_cpu, True)):
                rounded = _rewritten(together, weights, precision, widened)
                _write(folder, graphs, written, rounded)
    for graphs in (target, on_gpu, on_cpu):
        compose_variants(folder, graphs, contract)


@contextlib.contextmanager
def as_reference(model: nn.Module, precision: str) -> Iterator[None]:
    """Let the torch modules round to `precision` where the reference does."""
    if precision == TF32:
        with _ChangedFactors(_cut):
            yield
        return
    dtype = DTYPES[precision]
    patched: list[tuple[nn.Module, str]] = []

    def patch(module: nn.Module, method: str, own: Callable[..., Tensor]) -> None:
        setattr(module, method, own)
        patched.append((module, method))

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            in_8_bits = precision == FP8 and FP8_LAYERS.search(name) is not None
            factor = _in_8_bits if in_8_bits else _rounded(dtype)
            patch(module, 'forward', functools.partial(_rounded_linear, module, factor, dtype))
        elif isinstance(module, BLOCKS):
            patch(module, 'add', _rounded_result(module.add, dtype))
        elif isinstance(module, VisionEmbeddings):
            patch(module, 'forward', _rounded_embeddings(module.forward, dtype))
    try:
        yield
    finally:
        for module, method in patched:
            delattr(module, method)  # the class's own is back


class _ChangedFactors(TorchFunctionMode):
    """Changes the factors of every product."""

    def __init__(self, changed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._changed = changed

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        count = _PRODUCTS.get(func, 0)
        factors = [self._changed(value) for value in args[:count]]
        return func(*factors, *args[count:], **(kwargs or {}))


def _cut(factor: Tensor) -> Tensor:
    """Return what tf32 leaves of a factor."""
    return (factor.view(torch.int32) & TF32_MASK).view(torch.float32)


def _rounded_result(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    return lambda *arguments: function(*arguments).to(dtype).float()


def _rounded_embeddings(
    function: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    def embeddings(images: Tensor) -> Tensor:
        with _ChangedFactors(_rounded(dtype)):
            return function(images).to(dtype).float()

    return embeddings


def _rounded(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda factor: factor.to(dtype).float()


def _in_8_bits(factor: Tensor) -> Tensor:
    """Round to float8, each row by a scale that makes its largest magnitude that of float8."""
    largest = factor.abs().amax(dim=-1, keepdim=True).clamp(min=FP8_SMALLEST)
    scale = largest / FP8_LARGEST
    return (factor / scale).to(torch.float8_e4m3fn).float() * scale


def _rounded_linear(
    layer: nn.Linear, rounded: Callable[[Tensor], Tensor], dtype: torch.dtype, hidden: Tensor
) -> Tensor:
    product = F.linear(rounded(hidden), rounded(layer.weight)).to(dtype).float()
    return product if layer.bias is None else product + layer.bias


def _store_weights(
    model: onnx.ModelProto, folder: Path, precision: str, store: WeightStore
) -> dict[str, TensorProto]:
    """Write the weights of products in 16 bits; return them by their name in the graph."""
    wide = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
        and not any(part in tensor.name for part in KEPT)
    }
    used = dict.fromkeys(n.input[1] for n in model.graph.node if n.op_type == 'MatMul')
    return {
        name: _narrow(wide[name], folder, precision, store) for name in used if name in wide
    }


def _store_laid_out(
    model: onnx.ModelProto, orders: Mapping[str, ByRepeat], folder: Path, precision: str,
    store: WeightStore,
) -> dict[str, TensorProto]:
    """Write weights of `model` in another order and in 16 bits; return them by their new name."""
    wide = {tensor.name: tensor for tensor in model.graph.initializer}

    def values(name: str) -> NDArray[np.float32]:
        tensor = wide[name]
        outside = tensor.data_location == TensorProto.EXTERNAL
        return mapped_values(tensor, folder) if outside else numpy_helper.to_array(tensor)

    return {
        name: _narrow_values(name, order.of(values(order.source)), precision, store)
        for name, order in orders.items()
    }


def _narrow(
    tensor: TensorProto, folder: Path, precision: str, store: WeightStore
) -> TensorProto:
    return _narrow_values(tensor.name, np.array(mapped_values(tensor, folder)), precision, store)


def _narrow_values(
    name: str, values: NDArray[np.float32], precision: str, store: WeightStore
) -> TensorProto:
    narrow = torch.from_numpy(np.ascontiguousarray(values)).to(DTYPES[precision])
    if not bool(torch.isfinite(narrow).all()):
        raise GateError([f'{precision}: cannot hold {name}, which has larger values'])
    return store.reference(name, _ONNX_DTYPES[precision], narrow.view(torch.int16).numpy())


def _rewritten(
    model: onnx.ModelProto, weights: dict[str, TensorProto], precision: str, widened: bool
) -> onnx.ModelProto:
    """Return the graph with products in 16 bits, or, `widened`, with products in float32 of
    factors and results that are rounded to 16 bits."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in weights]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *weights.values()])
    rounding = _Rounding(graph, Graph(model.graph), weights, precision, widened)
    for node in model.graph.node:
        product = node.op_type == 'MatMul' and node.input[1] in weights
        gated = node.op_type in GATES and all(map(rounding.is_rounded, node.input))
        if product or gated or node.op_type in ATTENTION or rounding.is_attended(node):
            rounding.append(node)
        else:
            graph.node.append(node)
    without_unread(result)
    return result


@dataclass
class _Rounding:
    """Appends nodes to a graph whose factors and results are rounded to 16 bits.

    `graph` is written; `source` is the graph in float32.
    """

    graph: onnx.GraphProto
    source: Graph
    weights: Mapping[str, TensorProto]
    precision: str
    widened: bool
    made: set[str] = field(default_factory=set)

    def is_rounded(self, name: str) -> bool:
        """Say whether a value is there in 16 bits already."""
        return f'{name}/{self.precision}' in self.made

    def is_attended(self, node: NodeProto) -> bool:
        """Say whether a node adds a bias to a product for attention alone, which rounds it."""
        readers = {reader.op_type for reader in self.source.readers.get(node.output[0], [])}
        return (
            node.op_type == 'Add' and self.is_rounded(node.input[0])
            and node.input[1] in self.source.constants and readers <= set(ATTENTION)
        )

    def append(self, node: NodeProto) -> None:
        """Append a node that takes and gives rounded values, and its result in float32."""
        result = f'{node.output[0]}/{self.precision}'
        short = NodeProto()
        short.CopyFrom(node)
        short.input[:] = [name and self._factor(name) for name in node.input]
        short.output[:] = [f'{node.output[0]}/wide' if self.widened else result]
        self.graph.node.append(short)
        if self.widened:
            self._node('Cast', short.output, result, to=_ONNX_DTYPES[self.precision])
        self.made.add(result)  # who takes it in 16 bits takes it as it is
        self._node('Cast', [result], node.output[0], f'{result}/out', to=TensorProto.FLOAT)

    def _factor(self, name: str) -> str:
        """Return a value as a product takes it: rounded, in float32 where that multiplies.

        Nodes that only move values, for nobody else, move rounded ones.
        """
        if name in self.weights:
            return self._cast(name, TensorProto.FLOAT) if self.widened else name
        mover = self.source.made.get(name)
        alone = len(self.source.readers.get(name, [])) == 1 and name not in self.source.outputs
        moves = mover is not None and self.precision in MOVES.get(mover.op_type, ((), range))[0]
        if mover is None or not moves or not alone or self.is_rounded(name):
            short = self._cast(name, _ONNX_DTYPES[self.precision])
            return self._cast(short, TensorProto.FLOAT) if self.widened else short
        moved = NodeProto()
        moved.CopyFrom(mover)
        for index in MOVES[mover.op_type][1](len(mover.input)):
            moved.input[index] = self._factor(mover.input[index])
        moved.output[:] = [f'{name}/moved']
        moved.name = moved.output[0]
        self.graph.node.append(moved)
        return str(moved.output[0])

    def _cast(self, name: str, to: int) -> str:
        """Append a cast, unless it is there, and return the name of its result."""
        target = f'{name}/{"float" if to == TensorProto.FLOAT else self.precision}'
        if target not in self.made:
            self.made.add(target)
            self._node('Cast', [name], target, to=to)
        return target

    def _node(
        self, kind: str, inputs: Sequence[str], output: str, name: str = '', **attributes: Any
    ) -> None:
        self.graph.node.append(
            helper.make_node(kind, inputs, [output], name=name or output, **attributes)
        )


def _write(folder: Path, graphs: Graphs, which: str, model: onnx.ModelProto) -> None:
    path = folder / getattr(graphs, which)
    path.write_bytes(model.SerializeToString(deterministic=True))
