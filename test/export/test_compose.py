# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The composed graphs: the pair's own numbers over the pair's own weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vla_deploy.export import build, variants
from vla_deploy.export.build import ExportOptions, export_bundle
from vla_deploy.export.compose import ComposeError, compose_variants, looped, unrolled
from vla_deploy.export.parity import GateError
from vla_deploy.export.variants import VariantParity, variant_failures, variant_notes
from vla_deploy.pipeline import Policy, PolicyError
from vla_deploy.pipeline.bundle import FIXTURES, GRAPHS, REPORT, VARIANTS, WEIGHTS, open_bundle
from vla_deploy.pipeline.fixtures import read_fixtures
from vla_deploy.pipeline.guidance import Guidance

WHOLE = ('unrolled', 'loop')


@pytest.fixture(scope='module')
def folder(golden_bundle):
    return golden_bundle('smolvla_2cam_empty')


@pytest.fixture(scope='module')
def policies(folder):
    """Return the policy of each variant."""
    return {variant: Policy.load(folder, variant=variant, threads=1) for variant in VARIANTS}


@pytest.mark.parametrize('variant', WHOLE)
def test_when_served_by_a_variant_expect_the_bits_of_split(folder, policies, variant):
    generator = np.random.Generator(np.random.Philox(7))
    for fixture in read_fixtures(folder / FIXTURES, policies['split'].contract):
        noise = generator.standard_normal(fixture.noise.shape, dtype=np.float32)
        one, other = (policies[v].infer(fixture.observation, noise) for v in ('split', variant))
        assert one.raw.tobytes() == other.raw.tobytes()
        assert np.array_equal(one.actions, other.actions)


@pytest.mark.parametrize('variant', WHOLE)
def test_when_self_test_runs_expect_it_on_the_variant(policies, variant, monkeypatch):
    policy = policies[variant]
    assert policy.self_test().passed
    whole = policy._whole
    monkeypatch.setattr(policy, '_whole', lambda *inputs: whole(*inputs) + np.float32(0.01))
    assert not policy.self_test().passed


@pytest.mark.parametrize('variant', WHOLE)
def test_when_steps_are_wanted_of_a_whole_graph_expect_policy_error(policies, variant):
    backend = policies[variant]._backend
    for ask in (backend.prefix, backend.step):
        with pytest.raises(PolicyError, match=f'{variant}.onnx takes all steps.*needs variant .sp'):
            ask()


@pytest.mark.parametrize('variant', WHOLE)
def test_when_whole_graph_is_asked_for_guidance_expect_policy_error(folder, policies, variant):
    fixture = read_fixtures(folder / FIXTURES, policies[variant].contract)[0]
    guidance = Guidance(fixture.chunk, 1, 4, 'linear', 5.0)
    with pytest.raises(PolicyError, match="needs variant 'split'"):
        policies[variant].infer(fixture.observation, fixture.noise, guidance=guidance)


@pytest.mark.parametrize('variant', WHOLE)
def test_when_whole_expect_all_time_in_the_sampling(folder, policies, variant):
    fixture = read_fixtures(folder / FIXTURES, policies[variant].contract)[0]
    timings = policies[variant].infer(fixture.observation, fixture.noise).timings
    assert timings.prefix_s == 0
    assert timings.sample_s > 0


@pytest.mark.parametrize('variant', WHOLE)
def test_when_composed_expect_only_references_into_the_one_weights_file(folder, variant):
    path = folder / getattr(GRAPHS['fp32'], variant)
    model = onnx.load(path, load_external_data=False)
    places = [
        {entry.key: entry.value for entry in tensor.external_data}['location']
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    ]
    assert set(places) == {WEIGHTS}
    assert path.stat().st_size < (folder / WEIGHTS).stat().st_size / 4
    onnx.checker.check_model(str(path), full_check=True)


def test_when_exported_expect_the_comparison_in_receipt_and_report(folder):
    found = open_bundle(folder).receipt['parity']['variants']
    assert found == {v: {'bit_identical': True, 'max_abs': 0.0} for v in WHOLE}
    assert 'Variant loop against split: equal to the bit.' in (folder / REPORT).read_text()


def test_when_a_variant_takes_other_steps_expect_export_to_fail(
    checkpoint, ready_graphs, monkeypatch
):
    def other_steps(folder, graphs, contract):
        compose_variants(folder, graphs, dataclasses.replace(contract, denoise_steps=9))

    monkeypatch.setattr(build, 'compose_variants', other_steps)
    monkeypatch.setattr(build, 'run_variants', variants.run_variants)
    target = checkpoint.parent / 'bundle'
    with pytest.raises(GateError, match='fp32, variant unrolled: max_abs to split'):
        export_bundle(ExportOptions(checkpoint, target), 1, lambda stage: None)
    assert not target.exists()


@pytest.mark.parametrize(('strict', 'compared'), [(False, 1), (True, 3)])
def test_when_strict_expect_variants_compared_on_every_fixture_else_on_one(
    checkpoint, ready_graphs, monkeypatch, strict, compared
):
    counts = []

    def count(bundle, precision, cases, split, threads, progress):
        counts.append((len(cases), len(split)))
        return {}

    monkeypatch.setattr(build, 'run_variants', count)
    monkeypatch.setattr(build, 'still_states', lambda *arguments: [])
    options = ExportOptions(checkpoint, checkpoint.parent / 'bundle', strict=strict)
    export_bundle(options, 1, lambda stage: None)
    assert counts == [(compared, compared)]


def test_when_bits_differ_expect_a_note_and_only_strict_to_fail():
    found = {'loop': VariantParity(False, 1e-7), 'unrolled': VariantParity(True, 0.0)}
    assert not variant_failures('fp32', found, 1e-4)
    assert variant_notes('fp32', found) == ['fp32, variant loop differs from split by up to 1e-07']
    assert variant_failures('fp32', found, 1e-5) == [
        'fp32, variant loop: max_abs to split 1e-07 (equal bits)'
    ]


def pair(carried='memory', opset=20):
    """Return the two models of a policy whose velocity is what its prefix gives."""
    vector = helper.make_tensor_value_info

    def model(nodes, inputs, outputs):
        graph = helper.make_graph(nodes, 'g', inputs, outputs)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)])

    prefix = model(
        [helper.make_node('Identity', ['state'], ['memory'])],
        [vector('state', TensorProto.FLOAT, [2])],
        [vector('memory', TensorProto.FLOAT, [2])],
    )
    step = model(
        [helper.make_node('Add', ['x', carried], ['x_next'])],
        [vector(name, TensorProto.FLOAT, [2]) for name in ('x', carried)],
        [vector('x_next', TensorProto.FLOAT, [2])],
    )
    return prefix, step


@pytest.mark.parametrize('compose', [unrolled, looped])
def test_when_prefix_lacks_what_step_takes_expect_its_name(compose):
    with pytest.raises(ComposeError, match='the step graph takes other, which no prefix gives'):
        compose(*pair('other'), np.zeros((3, 4), np.float32), np.float32(-1 / 3))


@pytest.mark.parametrize('compose', [unrolled, looped])
def test_when_opsets_differ_expect_error(compose):
    with pytest.raises(ComposeError, match='opsets'):
        compose(pair()[0], pair(opset=19)[1], np.zeros((3, 4), np.float32), np.float32(-1 / 3))
