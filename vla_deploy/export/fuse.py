# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The same graphs with fewer and larger nodes, for GPUs, where a node costs a launch.

ONNX Runtime has one kernel each for a norm and for a rotation, which the exporter writes as six to
eight nodes, and does not put them together itself. Grouped queries attend to their keys and values
as they are, instead of to a copy for each query head. Image patches are convolved over their
colours again: one channel is for the order of a CPU's sums. Everything computes in float32 as
before, and the order of sums may differ in last bits; where graphs are to be rounded to 16 bits,
grouped attention becomes one node first (`attention.GroupedAttention`), which masks and lays out
weights otherwise. These nodes are ONNX Runtime's own, so that the plain graphs stay beside them for
everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from vla_deploy.core.contract import Contract
from vla_deploy.export.attention import repeated
from vla_deploy.export.compose import compose_variants
from vla_deploy.export.graph_edit import OWN_DOMAIN, Change, Graph
from vla_deploy.pipeline.bundle import GRAPHS, graphs_of

START = 'fused/start'
EPSILON = 1e-5  # of a norm that says none


def write_fused_graphs(folder: Path, contract: Contract) -> None:
    """Write the float32 graphs for GPUs, split and composed, over the weights of the plain ones."""
    source, target = GRAPHS['fp32'], graphs_of('fp32', 'cuda')
    for name, new_name in ((source.prefix, target.prefix), (source.step, target.step)):
        model = fused(onnx.load(folder / name, load_external_data=False))
        (folder / new_name).write_bytes(model.SerializeToString(deterministic=True))
    compose_variants(folder, target, contract)


def fused(
    model: ModelProto, attention: Callable[[Graph], Iterator[Change]] | None = None
) -> ModelProto:
    """Return the model with norms, rotations and grouped attention put together.

    `attention` may take what it can of grouped attention first, once rotations are one node each.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = Graph(result.graph)
    own = (attention,) if attention else ()
    for fuse in (_norms, _residuals, _rotations, *own, _groups, _towers, _patches):
        for replaced, nodes in fuse(graph):
            graph.replace(replaced, nodes)
        graph.sweep()
    graph.write()
    if not any(item.domain == OWN_DOMAIN for item in result.opset_import):
        result.opset_import.append(helper.make_opsetid(OWN_DOMAIN, 1))
    return result


def _norms(graph: Graph) -> Iterator[Change]:
    """x · 1 / sqrt(mean(x²) + eps), with the product by a scale that follows where it is a row."""
    for square in list(graph.nodes):
        if square.op_type != 'Pow' or graph.value(square.input[1]) != 2.0:
            continue
        chain, name = [square], square.output[0]
        for kind in ('ReduceMean', 'Add', 'Sqrt', 'Reciprocal', 'Mul'):
            node = graph.reader(name, kind)
            if node is None:
                break
            chain.append(node)
            name = node.output[0]
        x, unit = square.input[0], chain[-1]
        if unit.op_type != 'Mul' or x not in unit.input:
            continue
        epsilon = graph.value(chain[2].input[1])
        if epsilon is None:
            continue
        scaled = graph.reader(unit.output[0], 'Mul')
        scale = next((n for n in scaled.input if n != unit.output[0]), '') if scaled else ''
        tensor = graph.constants.get(scale)
        if scaled is None or tensor is None or len(tensor.dims) != 1:
            continue
        yield scaled, [
            helper.make_node(
                'SimplifiedLayerNormalization', [x, scale], scaled.output, name=scaled.output[0],
                axis=-1, epsilon=float(epsilon), stash_type=TensorProto.FLOAT,
            )
        ]


def _residuals(graph: Graph) -> Iterator[Change]:
    """A sum of two streams and the norm that reads it first, with a bias of the second stream."""
    taken: set[str] = set()
    for norm in list(graph.nodes):
        if norm.op_type not in ('SimplifiedLayerNormalization', 'LayerNormalization'):
            continue
        added = graph.maker(norm.input[0], 'Add')
        if added is None or any(name in graph.constants for name in added.input):
            continue
        if norm.input[0] in taken:  # another norm has the sum already
            continue
        streams, scales = list(added.input), list(norm.input[1:])
        if norm.op_type == 'LayerNormalization':
            biased = _biased(graph, streams[1])
            if biased is None:  # of another shape than the sum, perhaps
                continue
            streams[1] = biased[0]
            scales += [''] * (2 - len(scales)) + [biased[1]]
        attributes = {a.name: helper.get_attribute_value(a) for a in norm.attribute}
        total = added.output[0]
        taken.add(total)
        graph.drop(norm)
        yield added, [
            helper.make_node(
                f'Skip{norm.op_type}', [*streams, *scales], [norm.output[0], '', '', total],
                name=norm.name, domain=OWN_DOMAIN, epsilon=attributes.get('epsilon', EPSILON),
            )
        ]


def _biased(graph: Graph, name: str) -> tuple[str, str] | None:
    """Return a product and the bias that is added to it."""
    added = graph.maker(name, 'Add')
    if added is None or graph.maker(added.input[0], 'MatMul') is None:
        return None
    bias = graph.constants.get(added.input[1])
    return tuple(added.input) if bias is not None and len(bias.dims) == 1 else None


def _rotations(graph: Graph) -> Iterator[Change]:
    """Concat(a·cos − b·sin, b·cos + a·sin) of the halves a and b of each head."""
    for split in list(graph.nodes):
        if split.op_type != 'Split' or len(split.output) != 2:
            continue
        found = _rotation_of(graph, split)
        view = graph.maker(split.input[0], 'Reshape')
        if found is None or view is None:
            continue
        joined, cosine, sine = found
        shape = graph.value(view.input[1])
        if shape is None or len(shape) != 4:
            continue
        _, length, _, size = (int(n) for n in shape)
        name = joined.output[0]
        rows = graph.constant(f'fused/table{size}', np.array([-1, size // 2], np.int64))
        flat = graph.constant(f'fused/flat{length}', np.array([1, length, -1], np.int64))
        start = graph.constant(START, np.zeros(1, np.int64))
        tables = [f'{name}/cosine', f'{name}/sine']
        yield joined, [
            helper.make_node('Reshape', [split.input[0], flat], [f'{name}/flat']),
            helper.make_node('Reshape', [cosine, rows], [tables[0]]),
            helper.make_node('Reshape', [sine, rows], [tables[1]]),
            helper.make_node(
                'RotaryEmbedding', [f'{name}/flat', start, *tables], [f'{name}/turned'],
                name=name, domain=OWN_DOMAIN,
            ),
            helper.make_node('Reshape', [f'{name}/turned', view.input[1]], [name]),
        ]


def _rotation_of(graph: Graph, split: NodeProto) -> tuple[NodeProto, str, str] | None:
    """Return the last node of a rotation that begins with a split, the cosines and the sines."""
    first, second = split.output
    difference = next(
        (s for m in graph.readers.get(first, []) if (s := graph.reader(m.output[0], 'Sub'))), None
    )
    if difference is None:
        return None
    joined = graph.reader(difference.output[0], 'Concat')
    if joined is None or len(joined.input) != 2:
        return None
    total = graph.maker(joined.input[1], 'Add')
    if joined.input[0] != difference.output[0] or total is None:
        return None
    cosine = _factor(graph, difference.input[0], first)
    sine = _factor(graph, difference.input[1], second)
    if cosine is None or sine is None:
        return None
    if {_factor(graph, total.input[i], half) for i, half in ((0, second), (1, first))} != {
        cosine, sine
    }:
        return None
    return joined, cosine, sine


def _factor(graph: Graph, product: str, known: str) -> str | None:
    """Return the other factor of a product."""
    node = graph.maker(product, 'Mul')
    if node is None or known not in node.input:
        return None
    return next((name for name in node.input if name != known), None)


def _groups(graph: Graph) -> Iterator[Change]:
    """Queries [1,heads,L,size] against keys and values that are repeated for each group.

    The rows of all queries of a group multiply the group's one copy: [1,groups,heads/groups·L,…].
    """
    for scores in list(graph.nodes):
        scaled = graph.reader(scores.output[0], 'Mul') if scores.op_type == 'MatMul' else None
        masked = graph.reader(scaled.output[0], 'Where') if scaled else None
        weights = graph.reader(masked.output[0], 'Softmax') if masked else None
        mixed = graph.reader(weights.output[0], 'MatMul') if weights else None
        keys = repeated(graph, scores.input[1], [0, 2, 3, 1]) if mixed else None
        values = repeated(graph, mixed.input[1], [0, 2, 1, 3]) if mixed else None
        length = _length(graph, mixed) if mixed else None
        if not (scaled and mixed and keys and values and length) or keys[1:] != values[1:]:
            continue
        rows = (length, keys[1])
        scale = next(name for name in scaled.input if name != scores.output[0])
        yield scaled, _product(graph, scores.input[0], keys[0], [0, 2, 3, 1], rows, scale, scaled)
        yield mixed, _product(graph, mixed.input[0], values[0], [0, 2, 1, 3], rows, '', mixed)


def _length(graph: Graph, mixed: NodeProto) -> int | None:
    """Return the number of queries, which the shape behind the attention has."""
    turned = graph.reader(mixed.output[0], 'Transpose')
    joined = graph.reader(turned.output[0], 'Reshape') if turned else None
    shape = graph.value(joined.input[1]) if joined else None
    return int(shape[1]) if shape is not None and len(shape) == 3 and shape[1] > 0 else None


def _product(
    graph: Graph,
    left: str,
    once: str,
    order: Sequence[int],
    rows: tuple[int, int],
    scale: str,
    replaced: NodeProto,
) -> list[NodeProto]:
    """Return nodes for `left` [1,heads,L,…] times `once` [1,S,groups,size], then times `scale`.

    `rows`: L, and how many heads a group has.
    """
    name, (length, repeats) = replaced.output[0], rows
    fold, unfold = (
        graph.constant(f'fused/rows{count}', np.array([1, -1, count, 0], np.int64))
        for count in (length * repeats, length)
    )
    folded, turned, product, scaled = (
        f'{name}/{part}' for part in ('rows', 'once', 'product', 'scaled')
    )
    nodes = [
        helper.make_node('Reshape', [left, fold], [folded]),
        helper.make_node('Transpose', [once], [turned], perm=list(order)),
        helper.make_node('MatMul', [folded, turned], [product], name=name),
    ]
    if scale:
        nodes.append(helper.make_node('Mul', [product, scale], [scaled]))
    nodes.append(helper.make_node('Reshape', [scaled if scale else product, unfold], [name]))
    return nodes


def _towers(graph: Graph) -> Iterator[Change]:
    """Attention without a mask that is taken for one image after the other."""
    for joined in list(graph.nodes):
        if joined.op_type != 'Concat':
            continue
        turned = graph.reader(joined.output[0], 'Transpose')
        result = graph.reader(turned.output[0], 'Reshape') if turned else None
        parts = [graph.maker(name, 'MatMul') for name in joined.input]
        if result is None or None in parts:
            continue
        first = parts[0]
        assert first is not None
        weights = graph.maker(first.input[0], 'Softmax')
        scores = graph.maker(weights.input[0], 'MatMul') if weights else None
        if scores is None:
            continue
        sources = [
            _heads_of(graph, name) for name in (*scores.input, first.input[1])
        ]
        if None in sources or len({s[1] for s in sources if s}) != 1:
            continue
        heads = sources[0][1] if sources[0] else 0
        yield result, [
            helper.make_node(
                'MultiHeadAttention', [s[0] for s in sources if s], result.output,
                name=result.output[0], domain=OWN_DOMAIN, num_heads=heads,
            )
        ]


def _patches(graph: Graph) -> Iterator[Change]:
    """A convolution of one channel that holds the colours of each pixel side by side."""
    for flat in list(graph.nodes):
        if flat.op_type != 'Conv':
            continue
        images, kernel = (_colours_last(graph, name) for name in flat.input[:2])
        if images is None or kernel is None:
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in flat.attribute}
        sides = [attributes['kernel_shape'][0]] * 2
        yield flat, [
            helper.make_node(
                'Conv', [images, kernel, flat.input[2]], flat.output, name=flat.name,
                kernel_shape=sides, strides=sides,
            )
        ]


def _colours_last(graph: Graph, name: str) -> str | None:
    """Return what was turned from [n,colours,rows,columns] to [n,1,rows,columns·colours]."""
    reshaped = graph.maker(name, 'Reshape')
    turned = graph.maker(reshaped.input[0], 'Transpose') if reshaped else None
    if turned is None or list(turned.attribute[0].ints) != [0, 2, 3, 1]:
        return None
    return turned.input[0]


def _heads_of(graph: Graph, name: str) -> tuple[str, int] | None:
    """Return where a part of an image's heads comes from, [images,L,width], and their number."""
    node = graph.made.get(name)
    while node is not None and node.op_type in ('Mul', 'Reshape', 'Transpose', 'Split'):
        shape = graph.value(node.input[1]) if node.op_type == 'Reshape' else None
        if shape is not None and len(shape) == 4 and shape[3] == -1:
            return node.input[0], int(shape[2])
        node = graph.made.get(node.input[0])
    return None
