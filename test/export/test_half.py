# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""bf16 and fp16 beside float32 in one bundle: what is in 16 bits, and what it is held to."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from vla_deploy.cli import validate as validate_cli
from vla_deploy.export import build
from vla_deploy.export.build import ExportOptions, export_bundle
from vla_deploy.export.families import family_of
from vla_deploy.export.golden import golden_checkpoint
from vla_deploy.export.half import DTYPES, KEPT, MOVES, as_reference, write_half_graphs
from vla_deploy.export.parity import Figure, GateError
from vla_deploy.export.precisions import PrecisionParity, precision_failures
from vla_deploy.models.vision import VisionEmbeddings
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.bundle import (
    FIXTURES,
    GRAPHS,
    PREFIX_GRAPH,
    REPORT,
    STEP_GRAPH,
    VARIANTS,
    WEIGHTS,
    graphs_of,
    open_bundle,
)
from vla_deploy.pipeline.fixtures import read_fixtures

GOLDENS = Path(__file__).parents[1] / 'goldens'
GOLDEN = GOLDENS / 'pi05'
DIMS = GOLDEN / 'backbone' / 'tiny_model_config.json'
TYPES = {'bf16': TensorProto.BFLOAT16, 'fp16': TensorProto.FLOAT16}


def copied_graphs(ready):
    """Return what writes the float32 graphs of a bundle that is there, instead of tracing."""

    def copy(model, *paths):
        for name, path in zip((PREFIX_GRAPH, STEP_GRAPH, WEIGHTS), paths, strict=True):
            shutil.copyfile(ready / name, path)

    return copy


@pytest.fixture(scope='module', params=['bf16', 'fp16'])
def precision(request):
    return request.param


@pytest.fixture(scope='module')
def bundle(precision, golden_bundle, tmp_path_factory):
    """Return a bundle exported at a precision, its float32 graphs not traced anew."""
    copy = copied_graphs(golden_bundle('pi05'))
    target = tmp_path_factory.mktemp(precision) / 'bundle'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, 'export_graphs', copy)
        options = ExportOptions(GOLDEN / 'checkpoint', target, dims=DIMS, precision=precision)
        export_bundle(options, 1, lambda stage: None)
    return target


def test_when_exported_for_tf32_expect_what_a_gpu_is_held_to_and_no_graphs(
    golden_bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr(build, 'export_graphs', copied_graphs(golden_bundle('pi05')))
    options = ExportOptions(GOLDEN / 'checkpoint', tmp_path / 'b', dims=DIMS, precision='tf32')
    receipt = export_bundle(options, 1, lambda stage: None).receipt
    own = receipt['parity']['tf32']['reference_max_abs']
    assert 1e-5 < own < 1e-2
    assert receipt['thresholds']['tf32_target_max_abs'] == 1.25 * own
    assert repr(own) in (tmp_path / 'b' / REPORT).read_text(encoding='utf-8')
    assert not [name for name in receipt['files'] if 'tf32' in name]


def test_when_served_expect_an_error_of_the_precision_within_its_rule(bundle, precision):
    receipt = open_bundle(bundle).receipt
    test = Policy.load(bundle, precision=precision, threads=1).self_test()
    figures = receipt['parity'][precision]
    assert test.passed
    assert test.threshold == receipt['thresholds'][f'{precision}_target_max_abs']
    assert test.threshold == 1.25 * figures['reference_max_abs']
    # coarser than float32 by far: it is really the other graphs that ran
    assert 1e-4 < test.max_abs == figures['chunk']['max_abs']


def test_when_served_expect_the_variants_equal_to_the_bit(bundle, precision):
    policies = [
        Policy.load(bundle, precision=precision, variant=v, threads=1) for v in VARIANTS
    ]
    fixture = read_fixtures(bundle / FIXTURES, policies[0].contract)[0]
    assert len({p.infer(fixture.observation, fixture.noise).raw.tobytes() for p in policies}) == 1


def test_when_written_expect_large_products_in_16_bits_and_the_rest_in_float32(bundle, precision):
    counts = {}
    for name in (GRAPHS[precision].prefix, GRAPHS[precision].step):
        path = bundle / name
        onnx.checker.check_model(str(path), full_check=True)
        graph = onnx.load(path, load_external_data=False).graph
        weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == 'MatMul' and node.input[1] in weights:
                kept = any(part in node.input[1] for part in KEPT)
                data_type = weights[node.input[1]]
                counts[kept, data_type] = counts.get((kept, data_type), 0) + 1
            elif node.op_type not in ('MatMul', 'Cast'):
                assert TYPES[precision] not in {weights.get(value) for value in node.input}
    assert counts[False, TYPES[precision]] > 30
    assert counts[True, TensorProto.FLOAT] > 1
    assert (True, TYPES[precision]) not in counts


def test_when_written_for_gpus_expect_nothing_widened_only_to_be_moved_and_rounded_again(
    bundle, precision
):
    graphs = graphs_of(precision, 'cuda')
    for name in (graphs.prefix, graphs.step):
        graph = onnx.load(bundle / name, load_external_data=False).graph
        made = {value: node for node in graph.node for value in node.output}
        readers = Counter(value for node in graph.node for value in node.input)
        for node in graph.node:
            if node.op_type != 'Cast' or node.attribute[0].i != TYPES[precision]:
                continue
            source = node.input[0]
            while source in made and made[source].op_type in MOVES and readers[source] == 1:
                source = made[source].input[0]
            widened = source in made and made[source].op_type == 'Cast' and readers[source] == 1
            assert not widened or source == node.input[0]


def test_when_a_provider_has_no_such_products_expect_the_same_weights(bundle, precision):
    places = []
    for graphs in (GRAPHS[precision], graphs_of(precision, 'cpu')):
        model = onnx.load(bundle / graphs.prefix, load_external_data=False)
        places.append(
            {
                tensor.name: {entry.key: entry.value for entry in tensor.external_data}
                for tensor in model.graph.initializer
                if tensor.data_type == TYPES[precision]
            }
        )
    assert places[0] == places[1]
    assert places[0]


def test_when_rounded_like_the_reference_expect_it_gone_afterwards(precision):
    checkpoint = golden_checkpoint(GOLDEN)
    model, _ = family_of(checkpoint).load(checkpoint)
    layer = model.action_in_proj
    values = torch.linspace(-1, 1, layer.in_features)[None]
    exact = layer(values)
    with as_reference(model, precision):
        assert not torch.equal(layer(values), exact)
    assert torch.equal(layer(values), exact)


def test_when_patches_are_rounded_like_the_reference_expect_factors_and_sums_in_16_bits(precision):
    model, _ = family_of(golden_checkpoint(GOLDEN)).load(golden_checkpoint(GOLDEN))
    embeddings = next(m for m in model.modules() if isinstance(m, VisionEmbeddings))
    convolution, dtype = embeddings.patch_embedding, DTYPES[precision]
    side = round(len(embeddings.position_ids) ** 0.5) * convolution.kernel_size[0]
    images = torch.linspace(-1, 1, 3 * side * side).view(1, 3, side, side)
    with as_reference(model, precision):
        rounded = embeddings(images)
        again = embeddings(images.to(dtype).float())
    assert torch.equal(rounded, rounded.to(dtype).float())
    assert torch.equal(rounded, again)
    assert not torch.equal(embeddings(images), rounded)


def test_when_values_are_moved_expect_only_precisions_that_graphs_are_written_in():
    for precisions, _ in MOVES.values():
        assert set(precisions) <= set(TYPES)


def test_when_fp16_cannot_hold_a_weight_expect_its_name(golden_bundle, tmp_path):
    bundle = golden_bundle('pi05')
    graph = onnx.load(bundle / PREFIX_GRAPH, load_external_data=False).graph
    large = next(t for t in graph.initializer if 'gate_proj' in t.name)
    offset = next(int(e.value) for e in large.external_data if e.key == 'offset')
    for name in (PREFIX_GRAPH, STEP_GRAPH):
        shutil.copyfile(bundle / name, tmp_path / name)
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[offset : offset + 4] = np.float32(1e5).tobytes()
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(GateError, match=f'fp16: cannot hold {large.name}'):
        write_half_graphs(tmp_path, open_bundle(bundle).contract, 'fp16')


def test_when_worse_than_the_rule_expect_it_to_fail():
    def failures(error):
        chunk = Figure(error, 0.99)
        parity = PrecisionParity('bf16', chunk, Figure(9.0, 0.9), (9.0,), (), 0.1, {})
        return precision_failures(parity, 1e-4)

    assert failures(0.125) == []
    assert "more than 1.25 times the reference's own error 0.1" in failures(0.126)[0]
    assert failures(float('nan'))


def test_when_8_bits_ruin_the_policy_expect_it_to_fail_though_the_reference_is_as_bad():
    def failures(precision, chunk, actions):
        return precision_failures(
            PrecisionParity(precision, chunk, actions, (0.01,), (), 1.0, {}), 1e-4
        )

    good, coarse = Figure(0.01, 0.9999), Figure(1.0, 0.99)
    assert failures('fp8', good, good) == []
    assert failures('fp8', coarse, good) == ['fp8, chunk: cosine 0.99 (at least 0.999)']
    assert failures('fp8', good, coarse) == [
        'fp8, actions: max_abs 1.0 of the size of a dimension (at most 0.05)'
    ]
    assert failures('bf16', coarse, coarse) == []


def test_when_validated_expect_the_figures_again(bundle, precision, tmp_path):
    output = tmp_path / 'figures.json'
    command = ['export', str(bundle), '--threads', '1', '--output-json', str(output)]
    assert validate_cli.main(command) == 0
    figures = json.loads(output.read_text(encoding='ascii'))['parity'][precision]
    assert figures == open_bundle(bundle).receipt['parity'][precision]


@pytest.mark.parametrize('name', ['pi0', 'pi05', 'smolvla_3cam'])
def test_when_run_at_fp8_expect_only_the_language_layers_mlps_coarser_than_at_bf16(name):
    checkpoint = golden_checkpoint(GOLDENS / name)
    model, _ = family_of(checkpoint).load(checkpoint)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}

    def products(precision):
        with as_reference(model, precision):
            return {
                n: layer(torch.linspace(-1, 2, layer.in_features)[None])
                for n, layer in layers.items()
            }

    both = [products(precision) for precision in ('bf16', 'fp8')]
    coarser = {n for n in layers if not torch.equal(*(found[n] for found in both))}
    stacks = tuple(f'.{part}.layers.' for part in ('language_model', 'text_model'))
    assert coarser == {n for n in layers if '.mlp.' in n and any(s in n for s in stacks)}
    assert len(coarser) >= 9
