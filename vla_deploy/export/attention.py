# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Grouped attention as one node, for graphs whose products are in 16 bits.

ONNX Runtime's `MultiHeadAttention` takes queries, keys and values as rows of all heads, as products
give them, and keeps scores and softmax in float32 inside. It knows no groups. So a group becomes
its head, and the queries of all heads of a group the rows of that head: row l·R + r is query l of
the group's r-th head. Products give that order, without a node that turns it, where the columns of
the queries' weight lie by r first and by group after; and what comes out goes into a product whose
weight has its rows so.

Its kernel for GPUs reads masks as something that is added to the scores, and takes such only where
the number of rows is a multiple of 8, and their length too. Rows are made that many by heads of
zeros, which the next weight has zeros for; keys by copies of the last, which are masked.

A row of queries that sees no key mixes values by its scores, where the exporter's takes their
mean; such rows are padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from vla_deploy.export.graph_edit import OWN_DOMAIN, Change, Graph

MULTIPLE = 8  # of values of 16 bits, what kernels read at a time
MOST_PADDING = 1.5  # times the heads of a group that are worth being computed
BY_HEAD = [0, 2, 1, 3]  # rows of heads to heads of rows, and back
# Added to a score that is not to count: far below any other, and within fp16.
UNSEEN = -30000.0


@dataclass(frozen=True)
class ByRepeat:
    """How a weight's heads are laid out: along `axis`, [groups, repeats, size] become
    [padded, groups, size], of which those from `repeats` on are zeros."""

    source: str
    axis: int
    groups: int
    repeats: int
    padded: int

    def of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the weight's values, float32 of two dimensions, in the new order."""
        rows = values if self.axis == 0 else values.T
        heads = rows.reshape(self.groups, self.repeats, -1, rows.shape[1]).swapaxes(0, 1)
        padding = np.zeros((self.padded - self.repeats, *heads.shape[1:]), np.float32)
        result = np.concatenate([heads, padding]).reshape(-1, rows.shape[1])
        return result if self.axis == 0 else result.T


@dataclass(frozen=True)
class _Found:
    """Attention as the exporter writes it.

    `turned`: rotation of the queries; `product`: what gives them. `keys`, `values`: what is
    repeated for the heads of a group, [1,length,groups,size]. `mask`: bool [1,1,queries,length].
    `joined`: the node that puts heads together; `out`: the product that reads it.
    """

    turned: NodeProto
    product: NodeProto
    keys: str
    values: str
    mask: str
    scale: float
    queries: int
    length: int
    groups: int
    repeats: int
    size: int
    joined: NodeProto
    out: NodeProto


@dataclass
class GroupedAttention:
    """A pass over a graph, and the weights that it wants laid out anew, by their new names."""

    weights: dict[str, ByRepeat] = field(default_factory=dict)

    def __call__(self, graph: Graph) -> Iterator[Change]:
        """Yield one node for each attention with a number of heads that fits."""
        masks: dict[tuple[str, int], str] = {}
        for scores in list(graph.nodes):
            found = _found(graph, scores) if scores.op_type == 'MatMul' else None
            padded = _padded(found) if found else None
            if found and padded:
                yield found.out, self._nodes(graph, found, padded, masks)

    def _nodes(
        self, graph: Graph, found: _Found, padded: int, masks: dict[tuple[str, int], str]
    ) -> list[NodeProto]:
        """Return what takes the place of the product behind an attention."""
        name, node = found.joined.output[0], helper.make_node
        more = -found.length % MULTIPLE
        nodes: list[NodeProto] = []
        queries = found.turned.output[0]
        moved = found.groups > 1 or padded > found.repeats
        if moved:
            turned, queries = f'{name}/queries', f'{name}/turned'
            nodes += [
                node('MatMul', [found.product.input[0], self._laid(found, padded, 1)], [turned],
                     name=turned),
                node('RotaryEmbedding', [turned, *found.turned.input[1:]], [queries], name=queries,
                     domain=OWN_DOMAIN),
            ]
        rows, wide = found.queries * padded, found.groups * found.size
        parts = [_reshaped(graph, queries, [1, rows, wide], f'{name}/rows', nodes)]
        for what, source in (('keys', found.keys), ('values', found.values)):
            made, source = _long_rows(graph, source, found, found.length + more, f'{name}/{what}')
            nodes += made
            shape = [1, found.length + more, wide]
            parts.append(_reshaped(graph, source, shape, f'{name}/{what}/flat', nodes))
        bias = _bias(graph, found, padded, more, masks, nodes)
        nodes.append(
            node('MultiHeadAttention', [*parts, '', '', bias], [f'{name}/mixed'], name=name,
                 domain=OWN_DOMAIN, num_heads=found.groups, scale=found.scale)
        )
        joined = [1, found.queries, padded * wide]
        out = node('MatMul', [
            _reshaped(graph, f'{name}/mixed', joined, f'{name}/joined', nodes),
            self._laid(found, padded, 0) if moved else found.out.input[1],
        ], found.out.output, name=found.out.name)
        return [*nodes, out]

    def _laid(self, found: _Found, padded: int, axis: int) -> str:
        """Return the name of a weight in the new order: of the queries, or of what reads all."""
        source = (found.out, found.product)[axis].input[1]
        new = f'{source}/by_repeat'
        self.weights[new] = ByRepeat(source, axis, found.groups, found.repeats, padded)
        return new


def _padded(found: _Found) -> int | None:
    """Return how many heads a group is to have, or None where that would be too many."""
    padded = found.repeats
    while padded * found.queries % MULTIPLE:
        padded += 1
    return padded if padded <= MOST_PADDING * found.repeats else None


def _found(graph: Graph, scores: NodeProto) -> _Found | None:
    """Return the attention whose scores a product gives, where all of it is known."""
    scaled = graph.reader(scores.output[0], 'Mul')
    masked = graph.reader(scaled.output[0], 'Where') if scaled else None
    weights = graph.reader(masked.output[0], 'Softmax') if masked else None
    mixed = graph.reader(weights.output[0], 'MatMul') if weights else None
    turned = graph.reader(mixed.output[0], 'Transpose') if mixed else None
    joined = graph.reader(turned.output[0], 'Reshape') if turned else None
    out = graph.reader(joined.output[0], 'MatMul') if joined else None
    if not (scaled and masked and weights and mixed and turned and joined and out):
        return None
    if not _is_masked_softmax(graph, scaled, masked, weights):
        return None
    if out.input[1] not in graph.constants or not _has_order(turned, BY_HEAD):
        return None
    keys = repeated(graph, scores.input[1], [0, 2, 3, 1])
    values = repeated(graph, mixed.input[1], BY_HEAD)
    rotation = _rotated(graph, scores.input[0])
    factor = next(name for name in scaled.input if name != scores.output[0])
    scale, shape = graph.value(factor), graph.value(joined.input[1])
    if keys is None or values is None or keys[1:] != values[1:] or rotation is None:
        return None
    if scale is None or scale.size != 1 or shape is None or len(shape) != 3 or shape[1] <= 0:
        return None
    product, rotary = rotation
    repeats, length, size = keys[1:]
    width = graph.constants[product.input[1]].dims[1]
    return _Found(
        rotary, product, keys[0], values[0], masked.input[0], scale.item(), int(shape[1]), length,
        width // (repeats * size), repeats, size, joined, out,
    )


def _is_masked_softmax(
    graph: Graph, scaled: NodeProto, masked: NodeProto, weights: NodeProto
) -> bool:
    """Say whether a score stays where a mask [1,queries,length] says so, for all heads, and is next
    to nothing elsewhere, and each query's weights add up to 1."""
    view, low = graph.maker(masked.input[0], 'Unsqueeze'), graph.value(masked.input[2])
    axes = graph.value(view.input[1]) if view is not None else None
    last = [helper.get_attribute_value(a) for a in weights.attribute if a.name == 'axis']
    return (
        axes is not None and axes.tolist() == [1]
        and masked.input[1] == scaled.output[0]
        and low is not None and low.size == 1 and low.item() <= UNSEEN
        and last in ([], [-1], [3])
    )


def _has_order(transposed: NodeProto, order: list[int]) -> bool:
    return [list(a.ints) for a in transposed.attribute] == [order]


def _rotated(graph: Graph, name: str) -> tuple[NodeProto, NodeProto] | None:
    """Return the product behind rotated queries [1,heads,queries,size], and their rotation."""
    node = graph.made.get(name)
    rotary = None
    for kind in ('Transpose', 'Reshape', 'RotaryEmbedding', 'Reshape', 'Reshape'):
        if node is None or node.op_type != kind:
            return None
        if kind == 'Transpose' and not _has_order(node, BY_HEAD):
            return None
        rotary = node if kind == 'RotaryEmbedding' else rotary
        node = graph.made.get(node.input[0])
    known = node is not None and node.op_type == 'MatMul' and node.input[1] in graph.constants
    return (node, rotary) if known and node is not None and rotary is not None else None


def repeated(graph: Graph, name: str, order: list[int]) -> tuple[str, int, int, int] | None:
    """Return what is repeated for the heads of each group, how often, and the number and size of
    its rows."""
    transposed = graph.maker(name, 'Transpose')
    if transposed is None or not _has_order(transposed, order):
        return None
    reshaped = graph.maker(transposed.input[0], 'Reshape')
    expanded = reshaped and graph.maker(reshaped.input[0], 'Expand')
    unsqueezed = expanded and graph.maker(expanded.input[0], 'Unsqueeze')
    if reshaped is None or expanded is None or unsqueezed is None:
        return None
    axis = graph.value(unsqueezed.input[1])
    times, shape = graph.value(expanded.input[1]), graph.value(reshaped.input[1])
    if axis is None or axis.tolist() != [3] or shape is None or len(shape) != 4:
        return None
    if times is None or len(times) != 5 or list(times[[0, 1, 2, 4]]) != [1, 1, 1, 1]:
        return None
    return unsqueezed.input[0], int(times[3]), int(shape[1]), int(shape[3])


def _reshaped(
    graph: Graph, source: str, shape: list[int], name: str, nodes: list[NodeProto]
) -> str:
    given = graph.constant(f'attention/{"x".join(map(str, shape))}', np.array(shape, np.int64))
    nodes.append(helper.make_node('Reshape', [source, given], [name], name=name))
    return name


def _long_rows(
    graph: Graph, source: str, found: _Found, length: int, name: str
) -> tuple[list[NodeProto], str]:
    """Return nodes that make keys or values `length` rows long, and their result; what stands
    behind the last row does not count.

    Two parts that follow one another are each made so long, and each row taken from its own: to
    put parts of unequal length together, the runtime would copy four lists from the host first.
    """
    beside = graph.maker(source, 'Concat')
    own = _rows(graph, beside.input[1]) if beside is not None and len(beside.input) == 2 else None
    if beside is None or own is None or beside.attribute[0].i != 1:
        if length == found.length:
            return [], source
        return [_gathered(graph, source, (0, found.length, length), 1, name)], name
    first, before, after = found.length - own, f'{name}/before', f'{name}/after'
    is_first = np.arange(length).reshape(1, length, 1, 1) < first
    chosen = graph.constant(f'attention/first{first}of{length}', is_first)
    return [
        _gathered(graph, beside.input[0], (0, first, length), 1, before),
        _gathered(graph, beside.input[1], (first, own, length), 1, after),
        helper.make_node('Where', [chosen, before, after], [name], name=name),
    ], name


def _rows(graph: Graph, name: str) -> int | None:
    """Return the number of rows of what is shaped to [1,rows,heads,size]."""
    shaped = graph.maker(name, 'Reshape')
    shape = graph.value(shaped.input[1]) if shaped is not None else None
    return int(shape[1]) if shape is not None and len(shape) == 4 and shape[1] > 0 else None


def _gathered(
    graph: Graph, source: str, place: tuple[int, int, int], axis: int, name: str
) -> NodeProto:
    """Return a node that puts rows in their place: the first of them, their number, and the number
    of all; what is before and behind them is the first and the last of them again."""
    first, count, length = place
    indices = np.clip(np.arange(length) - first, 0, count - 1)
    given = graph.constant(f'attention/place{first}_{count}_{length}', indices)
    return helper.make_node('Gather', [source, given], [name], name=name, axis=axis)


def _bias(
    graph: Graph, found: _Found, padded: int, more: int,
    masks: dict[tuple[str, int], str], nodes: list[NodeProto],
) -> str:
    """Return what is added to scores [1,1,queries·padded,length+more]; made once for a mask."""
    view = graph.maker(found.mask, 'Unsqueeze')
    root = view.input[0] if view is not None else found.mask
    key = root, padded  # the mask's own length says what `more` is
    if key in masks:
        return masks[key]
    node, name = helper.make_node, f'attention/{root}/{padded}'
    seen = graph.constant('attention/seen', np.array(0.0, np.float32))
    unseen = graph.constant('attention/unseen', np.array(UNSEEN, np.float32))
    bias = f'{name}/bias'
    nodes.append(node('Where', [found.mask, seen, unseen], [bias], name=bias))
    length = found.length + more
    if more:
        behind = np.where(np.arange(length) < found.length, 0.0, UNSEEN).astype(np.float32)
        given = graph.constant(f'attention/behind{found.length}_{length}', behind)
        long, bias = f'{name}/long', f'{name}/ended'
        nodes.append(_gathered(graph, f'{name}/bias', (0, found.length, length), 3, long))
        nodes.append(node('Add', [long, given], [bias], name=bias))
    if padded > 1:
        apart = _reshaped(graph, bias, [1, -1, 1, length], f'{name}/apart', nodes)
        shape = [1, found.queries, padded, length]
        times = graph.constant(f'attention/{"x".join(map(str, shape))}', np.array(shape, np.int64))
        bias = f'{name}/each'
        nodes.append(node('Expand', [apart, times], [bias], name=bias))
    rows = [1, 1, found.queries * padded, length]
    masks[key] = _reshaped(graph, bias, rows, f'{name}/rows', nodes)
    return masks[key]
