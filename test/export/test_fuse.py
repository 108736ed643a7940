# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The graphs for GPUs: fewer nodes, the same numbers, and tf32 as a precision without graphs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from vla_deploy.backends import onnx_session
from vla_deploy.backends.onnx_runtime import OnnxRuntimeBackend, WholeOnnxRuntimeBackend
from vla_deploy.export.fuse import fused
from vla_deploy.export.half import as_reference
from vla_deploy.export.parity import Figure, GraphParity
from vla_deploy.export.precisions import tf32_thresholds
from vla_deploy.export.rungs import fused_failures
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.bundle import FIXTURES, GRAPHS, graphs_of, open_bundle
from vla_deploy.pipeline.fixtures import read_fixtures

ON_CPU = onnx_session.Placement(((onnx_session.CPU, {}),), 'cpu', False, 1)
FAMILIES = ('smolvla_2cam_empty', 'pi0', 'pi05')


def kinds(path: Path) -> Counter[str]:
    """Return how many nodes of each kind a graph has."""
    return Counter(n.op_type for n in onnx.load(path, load_external_data=False).graph.node)


@pytest.mark.parametrize('name', FAMILIES)
def test_when_fused_expect_the_same_chunk_from_the_pair_and_from_one_graph(golden_bundle, name):
    folder, graphs = golden_bundle(name), graphs_of('fp32', 'cuda')
    bundle = open_bundle(folder)
    fixture = read_fixtures(folder / FIXTURES, bundle.contract)[0]
    pair = OnnxRuntimeBackend(
        folder / graphs.prefix, folder / graphs.step, bundle.contract, ON_CPU
    )
    whole = WholeOnnxRuntimeBackend(folder / graphs.unrolled, bundle.contract, ON_CPU)
    chunks = [
        Policy(bundle, backend, 1).infer(fixture.observation, fixture.noise).raw
        for backend in (pair, whole)
    ]
    assert np.array_equal(*chunks)
    assert 0.0 < np.abs(chunks[0] - fixture.chunk).max() < 5e-6
    figures = bundle.receipt['parity']['fused_graph_chunk']
    assert 0.0 < figures['max_abs'] < 5e-6


def test_when_fused_expect_norms_rotations_groups_and_towers_put_together(golden_bundle):
    folder = golden_bundle('smolvla_2cam_empty')
    plain, on_gpu = (graphs_of('fp32', provider) for provider in ('cpu', 'cuda'))
    before, after = kinds(folder / plain.step), kinds(folder / on_gpu.step)
    assert after['SimplifiedLayerNormalization'] == 1
    assert after['SkipSimplifiedLayerNormalization'] == before['Reciprocal'] - 1
    assert after['RotaryEmbedding'] == before['Sub']
    assert not {'Pow', 'ReduceMean', 'Sqrt', 'Reciprocal', 'Sub', 'Split'} & set(after)
    assert after['Expand'] == before['Expand'] - 2 * before['Softmax']
    before, after = kinds(folder / plain.prefix), kinds(folder / on_gpu.prefix)
    assert after['MultiHeadAttention'] == 2
    # all but the first norm, whose sum has the positions, and with the bias of what is added
    assert after['SkipLayerNormalization'] == before['LayerNormalization'] - 1
    assert after['LayerNormalization'] == 1
    assert before['Softmax'] - after['Softmax'] == 2 * 3  # two layers, three slots for cameras


def test_when_fused_expect_patches_convolved_over_their_colours(golden_bundle):
    folder = golden_bundle('smolvla_2cam_empty')
    kernels = {}
    for provider in ('cpu', 'cuda'):
        path = folder / graphs_of('fp32', provider).prefix
        graph = onnx.load(path, load_external_data=False).graph
        (node,) = [node for node in graph.node if node.op_type == 'Conv']
        (shape,) = [list(a.ints) for a in node.attribute if a.name == 'kernel_shape']
        kernels[provider] = shape, node.input[1] in {tensor.name for tensor in graph.initializer}
    assert kernels == {'cpu': ([8, 24], False), 'cuda': ([8, 8], True)}


def test_when_there_is_nothing_to_fuse_expect_the_nodes_as_they_were(golden_bundle):
    model = onnx.load(golden_bundle('pi0') / GRAPHS['fp32'].step, load_external_data=False)
    once = fused(model)
    assert fused(once).graph.node == once.graph.node


def test_when_two_norms_read_a_sum_expect_the_first_with_it_and_the_same_numbers():
    drawn = np.random.Generator(np.random.Philox(5)).standard_normal
    constants = {
        'w': drawn((8, 8)), 'b': drawn(8), 's1': drawn(8), 's2': drawn(8), 'b2': drawn(8),
    }
    node = helper.make_node
    nodes = [
        node('MatMul', ['x', 'w'], ['product']),
        node('Add', ['product', 'b'], ['biased']),
        node('Add', ['x', 'biased'], ['sum']),
        node('LayerNormalization', ['sum', 's1'], ['first']),  # epsilon by default, and no bias
        node('LayerNormalization', ['sum', 's2', 'b2'], ['second'], epsilon=0.5),
    ]
    value = helper.make_tensor_value_info
    shape = [1, 3, 8]
    graph = helper.make_graph(
        nodes, 'norms', [value('x', TensorProto.FLOAT, shape)],
        [value(name, TensorProto.FLOAT, shape) for name in ('first', 'second', 'sum')],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    once = fused(model)
    assert [n.op_type for n in once.graph.node] == [
        'MatMul', 'SkipLayerNormalization', 'LayerNormalization'
    ]  # fmt: skip
    feeds = {'x': drawn(shape).astype(np.float32)}
    found, expected = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=['CPUExecutionProvider'])
        .run(None, feeds) for m in (once, model)
    )  # fmt: skip
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)


@pytest.mark.parametrize(('largest', 'failing'), [(9e-5, 0), (1e-4, 1), (float('nan'), 1)])
def test_when_fused_graphs_are_off_expect_the_gate_to_say_so(largest, failing):
    good = Figure(1e-6, 1.0)
    parities = [GraphParity(good, good, good, Figure(largest, 1.0)),
                GraphParity(good, good, good, good)]
    assert len(fused_failures(parities, 1e-4)) == failing


def test_when_cut_to_tf32_expect_products_of_such_factors_and_nothing_else():
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, 16, 16, generator=generator)
    cut = [(value.view(torch.int32) & ~0x1FFF).view(torch.float32) for value in (a, b)]
    with as_reference(torch.nn.Identity(), 'tf32'):
        assert torch.equal(F.linear(a, b), cut[0] @ cut[1].T)
        assert torch.equal(a @ b, torch.matmul(a, b))
        assert torch.equal(a + b, a.add(b))
        product = a @ b
    assert torch.equal(product, cut[0] @ cut[1])
    assert not torch.equal(product, a @ b)


def test_when_tf32_is_held_to_something_expect_1_25_times_the_references_own_error():
    assert tf32_thresholds(0.004) == {'tf32_target_max_abs': 0.005}
