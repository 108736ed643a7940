# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Grouped attention as one node: the same numbers, in the shape that kernels for GPUs take."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from vla_deploy.export.attention import MULTIPLE, ByRepeat, GroupedAttention
from vla_deploy.export.fuse import fused
from vla_deploy.export.half import write_half_graphs
from vla_deploy.export.weight_store import mapped_values
from vla_deploy.pipeline.bundle import GRAPHS, PREFIX_GRAPH, STEP_GRAPH, graphs_of, open_bundle

FAMILIES = ('smolvla_3cam', 'smolvla_2cam_empty', 'pi0', 'pi05')
HEADS, GROUPS, SIZE, WIDTH = 6, 2, 8, 10


def attention(queries, length=11, before=0):
    """Return a model in float32 of rotated queries that attend as the exporter writes it.

    Of the keys and values [length, groups, size], `before` are given and the rest a product.
    """
    generator = np.random.Generator(np.random.Philox(7))
    repeats, half = HEADS // GROUPS, SIZE // 2

    def drawn(*shape):
        return generator.standard_normal(shape, dtype=np.float32)

    constants = {
        'wq': drawn(WIDTH, HEADS * SIZE), 'wo': drawn(HEADS * SIZE, WIDTH),
        'wk': drawn(WIDTH, GROUPS * SIZE), 'scale': np.float32(0.3),
        'low': np.float32(np.finfo(np.float32).min), 'three': np.array([3]),
        'view': np.array([1, queries, -1, SIZE]), 'joined': np.array([1, queries, HEADS * SIZE]),
        'halves': np.array([half, half]), 'times': np.array([1, 1, 1, repeats, 1]),
        'all': np.array([1, length, -1, SIZE]), 'one': np.array([1]),
    }
    node = helper.make_node
    nodes = [
        node('MatMul', ['x', 'wq'], ['q']),
        node('Reshape', ['q', 'view'], ['heads']),
        node('Split', ['heads', 'halves'], ['a', 'b'], axis=-1),
        node('Mul', ['a', 'cosine'], ['ac']), node('Mul', ['b', 'sine'], ['bs']),
        node('Mul', ['b', 'cosine'], ['bc']), node('Mul', ['a', 'sine'], ['as']),
        node('Sub', ['ac', 'bs'], ['first']), node('Add', ['bc', 'as'], ['second']),
        node('Concat', ['first', 'second'], ['turned'], axis=-1),
        node('Transpose', ['turned'], ['by_head'], perm=[0, 2, 1, 3]),
    ]
    given = {'keys': 'keys', 'values': 'values'}
    if before:
        for name in given:
            nodes += [
                node('MatMul', ['x', 'wk'], [f'{name}/own']),
                node('Reshape', [f'{name}/own', 'view'], [f'{name}/rows']),
                node('Concat', [name, f'{name}/rows'], [f'{name}/both'], axis=1),
            ]
            given[name] = f'{name}/both'
    for name, order in (('keys', [0, 2, 3, 1]), ('values', [0, 2, 1, 3])):
        nodes += [
            node('Unsqueeze', [given[name], 'three'], [f'{name}/apart']),
            node('Expand', [f'{name}/apart', 'times'], [f'{name}/each']),
            node('Reshape', [f'{name}/each', 'all'], [f'{name}/repeated']),
            node('Transpose', [f'{name}/repeated'], [f'{name}/turned'], perm=order),
        ]
    nodes += [
        node('MatMul', ['by_head', 'keys/turned'], ['scores']),
        node('Mul', ['scores', 'scale'], ['scaled']),
        node('Unsqueeze', ['mask', 'one'], ['masks']),
        node('Where', ['masks', 'scaled', 'low'], ['masked']),
        node('Softmax', ['masked'], ['weights'], axis=-1),
        node('MatMul', ['weights', 'values/turned'], ['mixed']),
        node('Transpose', ['mixed'], ['by_row'], perm=[0, 2, 1, 3]),
        node('Reshape', ['by_row', 'joined'], ['flat']),
        node('MatMul', ['flat', 'wo'], ['out']),
    ]
    rows = before or length
    inputs = {
        'x': [1, queries, WIDTH], 'keys': [1, rows, GROUPS, SIZE],
        'values': [1, rows, GROUPS, SIZE], 'cosine': [1, queries, 1, half],
        'sine': [1, queries, 1, half],
    }
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, 'attention',
        [*(value(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()),
         value('mask', TensorProto.BOOL, [1, queries, length])],
        [value('out', TensorProto.FLOAT, [1, queries, WIDTH])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    feeds = {name: drawn(*shape) for name, shape in inputs.items()}
    feeds['mask'] = generator.random((1, queries, length)) < 0.6
    feeds['mask'][:, :, 0] = True
    return model, feeds


def with_weights(model, orders, source, read):
    """Return the model with the weights that it wants laid out anew, of `source`."""
    wide = {tensor.name: tensor for tensor in source.graph.initializer}
    for name, order in orders.items():
        model.graph.initializer.append(
            numpy_helper.from_array(order.of(np.array(read(wide[order.source]))), name)
        )
    return model


def run(model, feeds):
    """Return the only output of a model."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    return session.run(None, feeds)[0]


@pytest.mark.parametrize(('queries', 'before'), [(16, 0), (8, 0), (8, 3), (6, 5), (2, 9)])
def test_when_attention_is_one_node_expect_the_same_result(queries, before):
    model, feeds = attention(queries, before=before, length=before + queries if before else 11)
    grouped = GroupedAttention()
    one = with_weights(fused(model, grouped), grouped.weights, model, numpy_helper.to_array)
    kinds = [node.op_type for node in one.graph.node]
    assert kinds.count('MultiHeadAttention') == 1
    assert not {'Softmax', 'Transpose', 'Concat'} & set(kinds)
    expected = run(model, feeds)
    assert np.abs(run(one, feeds) - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(('queries', 'padded'), [(8, 3), (2, 4), (6, 4), (50, 4)])
def test_when_rows_are_no_multiple_of_8_expect_heads_of_zeros(queries, padded):
    grouped = GroupedAttention()
    fused(attention(queries)[0], grouped)
    orders = grouped.weights
    assert set(orders) == {'wq/by_repeat', 'wo/by_repeat'}
    assert {order.padded for order in orders.values()} == {padded}
    assert padded * queries % MULTIPLE == 0


def test_when_too_many_heads_would_be_padding_expect_products_of_groups():
    grouped = GroupedAttention()
    model = fused(attention(5)[0], grouped)  # 8 instead of 3
    assert grouped.weights == {}
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count('Softmax') == 1
    assert 'MultiHeadAttention' not in kinds


def swap(node):
    node.input[1], node.input[2] = node.input[2], node.input[1]


def turn(node):
    node.attribute[0].ints[:] = [0, 1, 2, 3]


def over_rows(node):
    node.attribute[0].i = -2


def constant(name, value):
    """Return what gives a constant of a graph another value."""

    def change(graph):
        tensor = next(t for t in graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))

    return change


def made(name, change):
    """Return what changes the node of a graph that makes a value."""
    return lambda graph: change(next(n for n in graph.node if name in n.output))


@pytest.mark.parametrize(
    'change',
    [
        made('masked', swap), made('weights', over_rows), made('by_head', turn),
        made('by_row', turn), constant('one', [0]), constant('low', np.float32(-1.0)),
        constant('scale', np.full(11, 0.3, np.float32)), constant('three', [2]),
        constant('times', [1, 1, 1, 3, 2]),
    ],
    ids=['branches swapped', 'over rows', 'heads not turned', 'result not turned',
         'axis of the mask', 'mask that hardly counts', 'many scales', 'axis of groups',
         'sizes repeated'],
)  # fmt: skip
def test_when_it_is_other_attention_expect_it_left_as_it_is(change):
    model, _ = attention(8)
    change(model.graph)
    grouped = GroupedAttention()
    kinds = [node.op_type for node in fused(model, grouped).graph.node]
    assert grouped.weights == {}
    assert kinds.count('Softmax') == kinds.count('Where') == 1
    assert 'MultiHeadAttention' not in kinds


def test_when_masked_expect_what_is_masked_to_have_no_part():
    model, feeds = attention(8)
    grouped = GroupedAttention()
    one = with_weights(fused(model, grouped), grouped.weights, model, numpy_helper.to_array)
    feeds['mask'][:, :, 4] = False
    before = run(one, feeds)
    feeds['keys'][:, 4] += 5.0
    feeds['values'][:, 4] *= -100.0
    assert np.array_equal(run(one, feeds), before)


@pytest.mark.parametrize('axis', [0, 1])
def test_when_a_weight_is_laid_out_expect_heads_by_repeat_and_zeros_behind(axis):
    values = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(24, 5)
    order = ByRepeat('w', axis, groups=2, repeats=3, padded=4)
    laid = order.of(values if axis == 0 else values.T)
    heads = (laid if axis == 0 else laid.T).reshape(4, 2, 4, 5)
    for repeat in range(3):
        for group in range(2):
            head = group * 3 + repeat
            assert np.array_equal(heads[repeat, group], values[head * 4 : head * 4 + 4])
    assert not heads[3].any()


@pytest.mark.parametrize('name', FAMILIES)
def test_when_a_policys_step_is_fused_expect_all_its_attention_in_one_node_each(
    golden_bundle, name
):
    folder = golden_bundle(name)
    model = onnx.load(folder / STEP_GRAPH, load_external_data=False)
    grouped = GroupedAttention()
    kinds = [node.op_type for node in fused(model, grouped).graph.node]
    assert kinds.count('MultiHeadAttention') == sum(
        node.op_type == 'Softmax' for node in model.graph.node
    )
    assert 'Softmax' not in kinds
    wide = {tensor.name: tensor for tensor in model.graph.initializer}
    for order in grouped.weights.values():
        values = np.array(mapped_values(wide[order.source], folder))
        assert order.of(values).size == values.size * order.padded // order.repeats


@pytest.mark.parametrize(
    ('name', 'grouped', 'left'),
    [('pi0', 4, 0), ('pi05', 2, 0), ('smolvla_3cam', 0, 3), ('smolvla_2cam_empty', 0, 3)],
)  # fmt: skip
def test_when_a_policys_prefix_is_fused_expect_one_node_each_where_few_heads_are_padding(
    golden_bundle, name, grouped, left
):
    model = onnx.load(golden_bundle(name) / PREFIX_GRAPH, load_external_data=False)
    own, plain = (
        [node.op_type for node in fused(model, attention).graph.node]
        for attention in (GroupedAttention(), None)
    )
    counts = [kinds.count('MultiHeadAttention') for kinds in (own, plain)]
    assert counts[0] - counts[1] == grouped  # beside the tower's
    assert own.count('Softmax') == left


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_when_written_in_16_bits_expect_attention_so_and_rotations_and_norms_in_float32(
    golden_bundle, precision, tmp_path
):
    folder = golden_bundle('smolvla_3cam')
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    write_half_graphs(tmp_path, open_bundle(folder).contract, precision)
    model = onnx.load(
        tmp_path / graphs_of(precision, 'cuda').step, load_external_data=False
    )
    short = {'bf16': TensorProto.BFLOAT16, 'fp16': TensorProto.FLOAT16}[precision]
    types = types_of(model)
    counts = dict.fromkeys(('MultiHeadAttention', 'RotaryEmbedding', 'norms'), 0)
    for node in model.graph.node:
        kind = 'norms' if 'LayerNormalization' in node.op_type else node.op_type
        if kind in counts:
            counts[kind] += 1
            floats = {types[n] for n in node.input if n} - {TensorProto.INT64}
            assert floats == {short if kind == 'MultiHeadAttention' else TensorProto.FLOAT}
        if node.op_type == 'Where':
            assert types[node.output[0]] != TensorProto.BFLOAT16  # GPUs have none
    assert all(counts.values())
    assert GRAPHS[precision].weights in {path.name for path in tmp_path.iterdir()}


def types_of(model):
    """Return the type of every value of a graph, which its nodes tell from their inputs."""
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        source = node.input[1 if node.op_type == 'Where' else 0]
        cast = [a.i for a in node.attribute if node.op_type == 'Cast' and a.name == 'to']
        types |= dict.fromkeys(node.output, cast[0] if cast else types[source])
    return types
