# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""int8 beside float32 in one bundle: its own graphs, figures, threshold and gate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from vla_deploy.cli import validate as validate_cli
from vla_deploy.export import build, precisions
from vla_deploy.export.build import ExportOptions, export_bundle
from vla_deploy.export.parity import Figure, GateError
from vla_deploy.export.precisions import PrecisionParity, precision_failures
from vla_deploy.export.quantize import quantize_columns
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.bundle import (
    FIXTURES,
    GRAPHS,
    PREFIX_GRAPH,
    REPORT,
    STEP_GRAPH,
    VARIANTS,
    WEIGHTS,
    open_bundle,
)
from vla_deploy.pipeline.fixtures import read_fixtures

CHECKPOINT = Path(__file__).parents[1] / 'goldens' / 'smolvla_3cam' / 'checkpoint'
INT8 = GRAPHS['int8']


@pytest.fixture(scope='module')
def copy_graphs(golden_bundle):
    bundle = golden_bundle('smolvla_3cam')

    def copy(model, *paths):
        for name, path in zip((PREFIX_GRAPH, STEP_GRAPH, WEIGHTS), paths, strict=True):
            shutil.copyfile(bundle / name, path)

    return copy


@pytest.fixture(scope='module')
def bundle(copy_graphs, tmp_path_factory):
    """Return a bundle exported with --precision int8, its float32 graphs not traced anew."""
    target = tmp_path_factory.mktemp('int8') / 'bundle'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, 'export_graphs', copy_graphs)
        options = ExportOptions(CHECKPOINT, target, precision='int8')
        export_bundle(options, 1, lambda stage: None)
    return target


def test_when_served_at_int8_expect_its_own_figure_and_threshold(bundle):
    receipt = open_bundle(bundle).receipt
    test = Policy.load(bundle, precision='int8', threads=1).self_test()
    assert test.passed
    assert test.threshold == receipt['thresholds']['int8_target_max_abs']
    assert test.threshold == 1.25 * receipt['parity']['int8']['chunk']['max_abs']
    # coarser than float32 by far: it is really the other graphs that ran
    assert test.max_abs > receipt['thresholds']['target_max_abs']
    assert test.cosine >= precisions.MIN_COSINE


def test_when_served_at_fp32_expect_the_figure_of_fp32(bundle):
    assert Policy.load(bundle, threads=1).self_test().max_abs < 1e-5


def test_when_quantized_expect_the_variants_equal_to_the_bit(bundle):
    policies = [
        Policy.load(bundle, precision='int8', variant=variant, threads=1) for variant in VARIANTS
    ]
    fixture = read_fixtures(bundle / FIXTURES, policies[0].contract)[0]
    chunks = {policy.infer(fixture.observation, fixture.noise).raw.tobytes() for policy in policies}
    assert len(chunks) == 1


def test_when_quantized_expect_every_weight_of_a_product_in_8_bits(bundle):
    for name in (INT8.prefix, INT8.step):
        graph = onnx.load(bundle / name, load_external_data=False).graph
        weights = {tensor.name: tensor for tensor in graph.initializer}
        products = [node for node in graph.node if node.op_type == 'MatMulInteger']
        assert products
        assert {weights[node.input[1]].data_type for node in products} == {onnx.TensorProto.INT8}
        plain = [node for node in graph.node if node.op_type == 'MatMul']
        assert not any(name in weights for node in plain for name in node.input)


def test_when_columns_are_quantized_expect_half_a_step_of_each_and_no_more():
    weight = np.random.default_rng(3).standard_normal((64, 5)).astype(np.float32)
    weight *= np.array([1e-3, 1.0, 50.0, 0.0, 1e-42], np.float32)
    narrow, scale = quantize_columns(weight)
    assert narrow.dtype == np.int8
    assert (np.abs(narrow * scale.astype(np.float64) - weight) <= 0.5001 * scale).all()
    np.testing.assert_array_equal(np.abs(narrow).max(axis=0), [127, 127, 127, 0, 0])
    np.testing.assert_array_equal(scale[3:], 1.0)  # nothing to divide by


def test_when_a_product_has_one_row_expect_its_weight_in_float32(bundle):
    graph = onnx.load(bundle / INT8.prefix, load_external_data=False).graph
    (node,) = [node for node in graph.node if 'model.state_proj.weight' in node.input]
    assert node.op_type == 'Gemm'


def test_when_products_share_a_factor_expect_it_quantized_once(bundle):
    graph = onnx.load(bundle / INT8.step, load_external_data=False).graph
    quantized = [node.input[0] for node in graph.node if node.op_type == 'DynamicQuantizeLinear']
    products = [node.input[0] for node in graph.node if node.op_type == 'MatMulInteger']
    assert len(quantized) == len(set(quantized)) == len(set(products)) < len(products)


def test_when_quantized_expect_float_weights_in_the_file_of_float32_only(bundle):
    places = {}
    for name in (INT8.prefix, INT8.step):
        for tensor in onnx.load(bundle / name, load_external_data=False).graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                entries = {entry.key: entry.value for entry in tensor.external_data}
                places.setdefault(entries['location'], set()).add(tensor.data_type)
    assert onnx.TensorProto.INT8 in places[INT8.weights]
    assert onnx.TensorProto.INT8 not in places[WEIGHTS]
    assert (bundle / INT8.weights).stat().st_size < (bundle / WEIGHTS).stat().st_size / 2


def test_when_quantized_expect_robot_unit_errors_in_the_report(bundle):
    figures = open_bundle(bundle).receipt['parity']['int8']
    report = (bundle / REPORT).read_text(encoding='utf-8')
    assert len(figures['action_error']) == 6
    for error in (*figures['action_error'], figures['chunk']['cosine']):
        assert repr(error) in report


def test_when_validated_expect_the_int8_figures_too(bundle, tmp_path):
    output = tmp_path / 'figures.json'
    command = ['export', str(bundle), '--threads', '1', '--output-json', str(output)]
    assert validate_cli.main(command) == 0
    figures = json.loads(output.read_text(encoding='ascii'))['parity']['int8']
    assert figures == open_bundle(bundle).receipt['parity']['int8']


def test_when_int8_misses_its_gate_expect_nothing_written(copy_graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(build, 'export_graphs', copy_graphs)
    for module in (build, precisions):
        monkeypatch.setattr(module, 'run_variants', lambda *arguments: {})
    monkeypatch.setattr(precisions, 'MAX_ACTION_ERROR', 1e-6)
    options = ExportOptions(CHECKPOINT, tmp_path / 'bundle', precision='int8')
    with pytest.raises(GateError, match='int8, actions: max_abs .* of the size of a dimension'):
        export_bundle(options, 1, lambda stage: None)
    assert not list(tmp_path.iterdir())


def test_when_direction_is_lost_expect_it_to_fail():
    def failures(chunk, actions):
        parity = PrecisionParity('int8', chunk, actions, (0.01,), (), None, {})
        return precision_failures(parity, 1e-4)

    assert failures(Figure(0.1, 0.99), Figure(0.01, 0.99)) == [
        'int8, chunk: cosine 0.99 (at least 0.999)'
    ]
    assert len(failures(Figure(0.1, float('nan')), Figure(float('nan'), 1.0))) == 2
