# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The two ONNX graphs of a policy and the one file of weights that they share.

`prefix` turns an observation into keys and values; `step` takes one Euler step. Both are static
in every shape and free of a batch dimension at their inputs. Other variants are composed from
these two over the same weights.

Graphs are traced with parameters that have a shape and no content. The weights go from the module
to the file one at a time, so that tracing takes no memory beside them; in the graph they have the
names that the module gives them.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import torch
from onnxscript import ir
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from vla_deploy.export.simplify import simplify
from vla_deploy.export.weight_store import WeightStore
from vla_deploy.models.families import FlowPolicy

OPSET = 20
IR_VERSION = 10

PREFIX_INPUTS = ('images', 'image_mask', 'tokens', 'token_mask', 'state')
PREFIX_OUTPUTS = ('key', 'value', 'prefix_mask')
STEP_INPUTS = ('key', 'value', 'prefix_mask', 'x', 'time_embedding', 'dt')
STEP_OUTPUTS = ('x_next', 'velocity')
STACK_TRACES = 'do_not_emit_stack_traces'  # a switch of the tracer
# A weight that a product takes as columns is stored so; its name says that it was turned.
TURNED = '.transposed'


class PrefixGraph(nn.Module):
    """One observation, without a batch dimension, to keys, values [layers,1,P,…] and mask [1,P]."""

    def __init__(self, model: FlowPolicy) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Tensor, image_mask: Tensor, tokens: Tensor, token_mask: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """images [slots,3,H,W], image_mask [slots], tokens and token_mask [T], state [padded]."""
        inputs = (images, image_mask, tokens, token_mask, state)
        prefix = self.model.prefix(*(value[None] for value in inputs))
        return prefix.key, prefix.value, prefix.mask


class StepGraph(nn.Module):
    """One Euler step of one chunk, without a batch dimension."""

    def __init__(self, model: FlowPolicy) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        key: Tensor,
        value: Tensor,
        prefix_mask: Tensor,
        x: Tensor,
        time_embedding: Tensor,
        dt: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """x [steps,padded], time_embedding [dim], dt [] to x + dt·v and v [steps,padded]."""
        moved, velocity = self.model.step(
            key, value, prefix_mask, x[None], time_embedding[None], dt
        )
        return moved[0], velocity[0]


def prefix_example(model: FlowPolicy) -> tuple[Tensor, ...]:
    """Return inputs of the prefix graph's shapes; their values do not matter."""
    config = model.config
    slots, text = config.camera_slots, config.max_tokens
    return (
        torch.zeros(slots, 3, config.image_height, config.image_width),
        torch.ones(slots, dtype=torch.bool),
        torch.zeros(text, dtype=torch.int64),
        torch.ones(text, dtype=torch.bool),
        torch.zeros(config.max_state_dim),
    )


def step_example(model: FlowPolicy) -> tuple[Tensor, ...]:
    """Return inputs of the step graph's shapes; their values do not matter."""
    config = model.config
    return (
        torch.zeros(config.kv_shape),
        torch.zeros(config.kv_shape),
        torch.ones(1, config.prefix_length, dtype=torch.bool),
        torch.zeros(config.chunk_size, config.max_action_dim),
        model.time_table[0].clone(),
        torch.tensor(-0.1),
    )


def export_graphs(
    model: FlowPolicy, prefix_path: Path, step_path: Path, weights_path: Path
) -> None:
    """Write both graphs and their weights; a tensor that both hold is stored once."""
    with open(weights_path, 'wb') as file:
        store = WeightStore(file, weights_path)
        for graph, example, names, path in (
            (PrefixGraph(model), prefix_example(model), (PREFIX_INPUTS, PREFIX_OUTPUTS),
             prefix_path),
            (StepGraph(model), step_example(model), (STEP_INPUTS, STEP_OUTPUTS), step_path),
        ):
            exported = _export(graph, example, *names)
            store.move_out(exported)
            path.write_bytes(_without_notes(exported).SerializeToString(deterministic=True))
        file.flush()
        os.fsync(file.fileno())


def _export(
    graph: nn.Module, example: tuple[Tensor, ...], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> ir.Model:
    """Return the traced graph, whose weights are the module's own memory."""
    with _quiet(), _no_collection(), torch.no_grad(), _stand_ins(graph) as weights:
        program = torch.onnx.export(
            graph.eval(),
            example,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
            optimize=False,
        )
        if program is None:
            raise RuntimeError('torch.onnx.export returned nothing')
        _initializers_to_inputs(program.model.graph, weights)
        simplify(program.model)
    exported = program.model
    _inputs_to_initializers(exported.graph, weights)
    if exported.opset_imports != {'': OPSET}:
        raise RuntimeError(f'exported opset {exported.opset_imports}, not {OPSET}')
    exported.ir_version = IR_VERSION
    return exported


@contextlib.contextmanager
def _stand_ins(module: nn.Module) -> Iterator[Mapping[str, Tensor]]:
    """Replace the parameters by ones that have a shape and no content; yield the real ones."""
    weights = dict(module.named_parameters())
    with FakeTensorMode(allow_non_fake_inputs=True):
        for name, weight in weights.items():
            _set_parameter(module, name, torch.empty(weight.shape, dtype=weight.dtype))
    try:
        yield {name: weight.detach() for name, weight in weights.items()}
    finally:
        for name, weight in weights.items():
            _set_parameter(module, name, weight)


def _set_parameter(module: nn.Module, name: str, value: Tensor) -> None:
    owner, _, attribute = name.rpartition('.')
    if not isinstance(value, nn.Parameter):
        value = nn.Parameter(value, requires_grad=False)
    setattr(module.get_submodule(owner), attribute, value)


def _initializers_to_inputs(graph: ir.Graph, weights: Mapping[str, Tensor]) -> None:
    """Make inputs of the weights, so that the optimiser, which folds constants, does not ask for
    their content."""
    for name in [name for name in weights if name in graph.initializers]:
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)


def _inputs_to_initializers(graph: ir.Graph, weights: Mapping[str, Tensor]) -> None:
    """Undo `_initializers_to_inputs`, with the content, and turn what the graph would turn."""
    for value in [value for value in graph.inputs if value.name in weights]:
        graph.inputs.remove(value)
        weight = weights[str(value.name)]
        for user, _ in tuple(value.uses()):
            if user.op_type == 'Transpose' and weight.dim() == 2:
                turned = user.outputs[0]
                stored = _initializer(f'{value.name}{TURNED}', weight.t())
                turned.replace_all_uses_with(stored)
                graph.remove(user, safe=True)
                graph.initializers.add(stored)
        if value.uses():
            value.const_value = ir.tensor(weight.numpy(), name=value.name)
            graph.initializers.add(value)


def _initializer(name: str, weight: Tensor) -> ir.Value:
    content = ir.tensor(weight.numpy(), name=name)
    return ir.Value(
        name=name,
        shape=content.shape,
        type=ir.TensorType(content.dtype),
        const_value=content,
    )


def _without_notes(model: ir.Model) -> onnx.ModelProto:
    """Return the graph for writing, without stack traces and names of this machine's files."""
    proto = ir.to_proto(model)
    proto.ClearField('metadata_props')
    graph = proto.graph
    graph.ClearField('metadata_props')
    graph.ClearField('doc_string')
    graph.ClearField('value_info')
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        item.ClearField('metadata_props')
        item.ClearField('doc_string')
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about itself off the terminal and out of the graph; its errors are
    exceptions."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _no_stack_traces():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _no_stack_traces() -> Iterator[None]:
    """Keep stack traces out of the graph, which cost a fifth of the time, for nothing; torch 2.11,
    which LeRobot 0.6.1 asks for, always writes them."""
    before = getattr(torch.fx.config, STACK_TRACES, None)
    if before is None:
        yield
        return
    setattr(torch.fx.config, STACK_TRACES, True)
    try:
        yield
    finally:
        setattr(torch.fx.config, STACK_TRACES, before)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector away, a sixth of the time, from objects that are all in use."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
