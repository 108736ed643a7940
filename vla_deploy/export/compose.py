# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""One graph from observation and noise to a chunk, composed from the prefix and the step graph.

`unrolled` repeats the step's nodes for every Euler step, which suits compilers that know no
loops; `loop` holds them once, in the body of an ONNX `Loop`. Both refer to the weights file of
the pair, so that no weight is written again, and compute what the pair computes under the
sampler: embeddings of time and the step size are the sampler's own, as constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from vla_deploy.core.contract import Contract
from vla_deploy.pipeline.bundle import Graphs
from vla_deploy.pipeline.sampler import time_embeddings

OWN_STEP_INPUTS = ('x', 'time_embedding', 'dt')
NOISE, CHUNK, DT, TIMES = 'noise', 'chunk', 'dt', 'time_embeddings'


class ComposeError(RuntimeError):
    """The two graphs cannot be put together; says why."""


def compose_variants(folder: Path, graphs: Graphs, contract: Contract) -> None:
    """Write the unrolled and the loop graph beside the pair that `graphs` names.

    Raises ComposeError for a pair that does not fit together.
    """
    prefix = onnx.load(folder / graphs.prefix, load_external_data=False)
    step = onnx.load(folder / graphs.step, load_external_data=False)
    times = time_embeddings(contract.time_embedding, contract.denoise_steps)
    dt = np.float32(-1.0 / contract.denoise_steps)
    for name, make in ((graphs.unrolled, unrolled), (graphs.loop, looped)):
        model = make(prefix, step, times, dt)
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))


def unrolled(
    prefix: ModelProto, step: ModelProto, times: NDArray[np.float32], dt: np.float32
) -> ModelProto:
    """Return the model that takes all steps one after the other.

    `times` float32 [steps, dim]: the embedding of each step's time; `dt` the step size. The
    embeddings are inputs with a default: a runtime folds what depends on constants alone, and
    does it with other kernels than it serves with, which changes last bits.
    """
    graph = _start(prefix, step, dt)
    x = NOISE
    for index, embedding in enumerate(times):
        last = index == len(times) - 1
        time, x_next = f'step{index}/time_embedding', CHUNK if last else f'step{index}/x_next'
        graph.input.append(
            helper.make_tensor_value_info(time, TensorProto.FLOAT, embedding.shape)
        )
        graph.initializer.append(numpy_helper.from_array(embedding, time))
        given = {'x': x, 'time_embedding': time, 'dt': DT, 'x_next': x_next}
        graph.node.extend(_step_nodes(step, f'step{index}/', given))
        x = x_next
    return _model(prefix, step, graph)


def looped(
    prefix: ModelProto, step: ModelProto, times: NDArray[np.float32], dt: np.float32
) -> ModelProto:
    """Return the model that takes the steps in an ONNX `Loop`; arguments as for `unrolled`.

    The weights stay in the outer graph, which the body sees.
    """
    graph = _start(prefix, step, dt)
    graph.initializer.extend(
        [
            numpy_helper.from_array(times, TIMES),
            numpy_helper.from_array(np.array(len(times), np.int64), 'step_count'),
            numpy_helper.from_array(np.array(True), 'always'),
        ]
    )
    given = {
        'x': 'body/x', 'time_embedding': 'body/time_embedding', 'dt': DT, 'x_next': 'body/x_next'
    }
    x, x_next = _value(step.graph.input, 'x'), _value(step.graph.output, 'x_next')
    body = helper.make_graph(
        [
            helper.make_node('Gather', [TIMES, 'body/index'], ['body/time_embedding'], axis=0),
            helper.make_node('Identity', ['body/on'], ['body/still_on']),
            *_step_nodes(step, 'body/', given),
        ],
        'euler_step',
        [
            helper.make_tensor_value_info('body/index', TensorProto.INT64, []),
            helper.make_tensor_value_info('body/on', TensorProto.BOOL, []),
            _renamed(x, 'body/x'),
        ],
        [
            helper.make_tensor_value_info('body/still_on', TensorProto.BOOL, []),
            _renamed(x_next, 'body/x_next'),
        ],
    )
    graph.node.append(
        helper.make_node('Loop', ['step_count', 'always', NOISE], [CHUNK], name='loop', body=body)
    )
    return _model(prefix, step, graph)


def _start(prefix: ModelProto, step: ModelProto, dt: np.float32) -> GraphProto:
    """Return a graph with the inputs, all weights, and the prefix's nodes."""
    carried = _carried(step)
    outputs = {value.name for value in prefix.graph.output}
    if missing := sorted(carried - outputs):
        raise ComposeError(f'the step graph takes {", ".join(missing)}, which no prefix gives')
    inputs = {value.name for value in prefix.graph.input}
    if taken := sorted(inputs & {NOISE, CHUNK, DT}):
        raise ComposeError(f'the prefix graph already has an input {", ".join(taken)}')
    graph = GraphProto(name='policy')
    graph.input.extend(prefix.graph.input)
    graph.input.append(_renamed(_value(step.graph.input, 'x'), NOISE))
    graph.output.append(_renamed(_value(step.graph.output, 'x_next'), CHUNK))
    graph.initializer.append(numpy_helper.from_array(np.array(dt, np.float32), DT))
    for part, model in (('prefix/', prefix), ('step/', step)):
        for tensor in model.graph.initializer:
            copy = graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = part + tensor.name
    kept = {name: name for name in inputs} | {name: f'prefix/{name}' for name in carried}
    graph.node.extend(_nodes(prefix.graph, _namer(prefix.graph, 'prefix/', 'prefix/', kept)))
    return graph


def _step_nodes(step: ModelProto, scope: str, given: dict[str, str]) -> list[NodeProto]:
    """Return the step's nodes, everything they make named in `scope`, what is given as given."""
    given = given | {name: f'prefix/{name}' for name in _carried(step)}
    return _nodes(step.graph, _namer(step.graph, scope, 'step/', given))


def _namer(
    graph: GraphProto, scope: str, weights: str, given: dict[str, str]
) -> Callable[[str], str]:
    initializers = {tensor.name for tensor in graph.initializer}

    def name(old: str) -> str:
        if not old:  # an optional input that is left out
            return old
        return given.get(old) or (weights if old in initializers else scope) + old

    return name


def _nodes(graph: GraphProto, name: Callable[[str], str]) -> list[NodeProto]:
    nodes = []
    for node in graph.node:
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
               for a in node.attribute):
            raise ComposeError(f'node {node.name} ({node.op_type}) holds a graph of its own')
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = name(node.name)
        copy.input[:] = [name(value) for value in node.input]
        copy.output[:] = [name(value) for value in node.output]
        nodes.append(copy)
    return nodes


def _carried(step: ModelProto) -> set[str]:
    return {value.name for value in step.graph.input} - set(OWN_STEP_INPUTS)


def _value(values: Iterable[ValueInfoProto], name: str) -> ValueInfoProto:
    for value in values:
        if value.name == name:
            return value
    raise ComposeError(f'the step graph has no {name!r}')


def _renamed(value: ValueInfoProto, name: str) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _model(prefix: ModelProto, step: ModelProto, graph: GraphProto) -> ModelProto:
    if prefix.ir_version != step.ir_version:
        raise ComposeError(f'IR versions {prefix.ir_version} and {step.ir_version} differ')
    versions = {item.domain: item.version for item in prefix.opset_import}
    for item in step.opset_import:
        if versions.setdefault(item.domain, item.version) != item.version:
            raise ComposeError(f'opsets of domain {item.domain!r} differ')
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=prefix.ir_version)
