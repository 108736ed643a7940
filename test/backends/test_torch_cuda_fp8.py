# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The language layers' MLPs in 8 bits, on the CPU: what is rounded and when, and its threshold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from vla_deploy.backends import quantised as quantised_module  # noqa: E402
from vla_deploy.backends import torch_requirements, weights_file  # noqa: E402
from vla_deploy.backends.fused_inputs import bucket_of  # noqa: E402
from vla_deploy.backends.fused_layers import merged_mlp  # noqa: E402
from vla_deploy.backends.parameters import (  # noqa: E402
    BundleParameters,
    Factor,
    ModuleParameters,
)
from vla_deploy.backends.quantised import CODES, LARGEST, Quantised, product, quantised  # noqa: E402
from vla_deploy.cli import validate as validate_cli  # noqa: E402
from vla_deploy.export import build  # noqa: E402
from vla_deploy.export.build import ExportOptions, export_bundle  # noqa: E402
from vla_deploy.pipeline import BundleError, Policy, PolicyError  # noqa: E402
from vla_deploy.pipeline.bundle import (  # noqa: E402
    PREFIX_GRAPH,
    REPORT,
    STEP_GRAPH,
    WEIGHTS,
    open_bundle,
)
from vla_deploy.pipeline.fixtures import read_fixtures  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread')
GOLDENS = Path(__file__).parents[1] / 'goldens'
SETS = ('pi0', 'pi05', 'smolvla_2cam_empty')
CPU = torch.device('cpu')
ROUNDING = 2.0**-4  # of a number, in 3 bits of mantissa


@pytest.fixture(scope='module', params=SETS)
def bundle(request, golden_bundle, tmp_path_factory):
    """Return a bundle exported at fp8, its float32 graphs not traced anew."""
    name, ready = request.param, golden_bundle(request.param)
    target = tmp_path_factory.mktemp('fp8') / name

    def copy(model, *paths):
        for own, path in zip((PREFIX_GRAPH, STEP_GRAPH, WEIGHTS), paths, strict=True):
            shutil.copyfile(ready / own, path)

    dims = GOLDENS / name / 'backbone' / 'tiny_model_config.json'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, 'export_graphs', copy)
        options = ExportOptions(
            GOLDENS / name / 'checkpoint', target, dims=dims if dims.is_file() else None,
            precision='fp8',
        )
        export_bundle(options, 1, lambda stage: None)
    return target


def load(bundle, precision, **options):
    """Return the policy of a bundle on the torch backend's CPU form."""
    given = {'backend': 'torch_cuda', 'provider': 'cpu', 'threads': 1, **options}
    return Policy.load(bundle, precision=precision, **given)


def chunks(policy, bundle):
    """Return the raw chunks of a bundle's fixtures."""
    fixtures = read_fixtures(bundle / 'fixtures.npz', policy.contract)
    return np.stack([policy.infer(f.observation, noise=f.noise).raw for f in fixtures])


def test_when_served_expect_its_own_rounding_within_its_own_threshold(bundle):
    exact, half, eight = (chunks(load(bundle, p), bundle) for p in ('fp32', 'bf16', 'fp8'))
    test = load(bundle, 'fp8').self_test()
    receipt = open_bundle(bundle).receipt
    figures = receipt['parity']['fp8']
    assert test.threshold == receipt['thresholds']['fp8_target_max_abs']
    assert test.threshold == 1.25 * figures['reference_max_abs']
    assert test.passed
    assert test.max_abs == figures['chunk']['max_abs']
    errors = [float(np.linalg.norm(c - exact) / np.linalg.norm(exact)) for c in (half, eight)]
    assert 1.1 * errors[0] < errors[1] < 4 * errors[0]


def test_when_exported_expect_it_told_in_the_report_and_no_graphs(bundle):
    figures = open_bundle(bundle).receipt['parity']['fp8']
    report = (bundle / REPORT).read_text(encoding='utf-8')
    assert '## fp8' in report
    assert repr(figures['reference_max_abs']) in report
    assert repr(figures['chunk']['max_abs']) in report
    assert '- cosine at least 0.999, actions at most 0.05' in report
    assert not [path.name for path in bundle.iterdir() if 'fp8' in path.name]


def test_when_validated_expect_the_figures_again(bundle, tmp_path):
    output = tmp_path / 'figures.json'
    command = ['export', str(bundle), '--threads', '1', '--output-json', str(output)]
    assert validate_cli.main(command) == 0
    figures = json.loads(output.read_text(encoding='ascii'))['parity']['fp8']
    assert figures == open_bundle(bundle).receipt['parity']['fp8']


def test_when_the_receipt_has_no_threshold_expect_it_refused_by_name_and_what_to_do(golden_bundle):
    policy = load(golden_bundle('pi0'), 'fp8')
    missing = r'has no thresholds\.fp8_target_max_abs; export again with --precision fp8$'
    with pytest.raises(BundleError, match=missing):
        policy.self_test()


def test_when_onnx_runtime_is_asked_for_expect_the_possible_precisions(golden_bundle):
    with pytest.raises(PolicyError, match="precision 'fp8' is not possible"):
        Policy.load(golden_bundle('pi0'), precision='fp8', threads=1)


def test_when_weights_arrive_in_pieces_expect_them_in_8_bits_of_their_whole_rows(
    golden_bundle, monkeypatch
):
    monkeypatch.setattr(weights_file, 'SPAN_BYTES', 4096)
    source = BundleParameters(open_bundle(golden_bundle('smolvla_2cam_empty')), CPU)
    found = {}
    for name in (n for n in source._entries if '.text_model.layers.0.mlp.' in n):
        rows, columns = source.shape(name)
        norm = name.partition('mlp')[0] + 'input_layernorm.weight'
        factor = Factor(1.0, norm if source.shape(norm) == (columns,) else None)
        target = Quantised.empty(rows, columns, CPU)
        target.scale.fill_(torch.nan)  # as memory may be that was not yet filled
        source.fill(target, name, factor)
        scale = 1.0 if factor.name is None else source.read(norm) + 1.0
        found[name] = target, source.read(name) * scale
    source.finish()
    assert len(found) == 3
    for target, values in found.values():
        expected = quantised(values)
        assert torch.equal(target.scale, expected.scale)
        assert torch.equal(target.codes.float(), expected.codes.float())


@pytest.mark.parametrize('name', SETS)
def test_when_loaded_expect_no_more_than_the_mlps_of_the_language_layers_in_8_bits(
    golden_bundle, name
):
    policy = load(golden_bundle(name), 'fp8')._backend._policy
    *layers, last = policy.language.layers
    assert not hasattr(last, 'down')  # only keys and values are wanted of it
    for layer in layers:
        for weight in (layer.gate_up, layer.down):
            assert weight.codes.dtype == CODES
            assert weight.scale.shape == (len(weight),)
        assert layer.qkv.dtype == layer.out.dtype == torch.bfloat16
    for layer in policy.expert.layers:
        assert {layer.gate_up.dtype, layer.down.dtype} == {torch.bfloat16}


@torch.inference_mode()
def test_when_only_products_are_run_expect_those_in_8_bits_too(golden_bundle, monkeypatch):
    backend = load(golden_bundle('pi0'), 'fp8')._backend
    policy, config = backend._policy, backend._policy.config
    bucket = bucket_of(config, config.camera_slots, config.max_tokens)
    policy.length.fill_(1)
    shapes = []

    def counted(x, weight):
        if isinstance(weight, Quantised):
            shapes.append(tuple(weight.codes.shape))
        return product(x, weight)

    monkeypatch.setattr('vla_deploy.backends.torch_ops.product', counted)
    policy.load_products(backend._inputs_of(bucket))
    layers = policy.language.layers[:-1]
    expected = [tuple(w.codes.shape) for own in layers for w in (own.gate_up, own.down)]
    assert shapes == expected


def test_when_observations_are_computed_together_expect_the_chunks_of_each_alone(golden_bundle):
    bundle = golden_bundle('pi05')
    policy = load(bundle, 'fp8', variant='unrolled', batch=2)
    fixtures = read_fixtures(bundle / 'fixtures.npz', policy.contract)[:2]
    observations, noise = [f.observation for f in fixtures], [f.noise for f in fixtures]
    together = policy.infer_batch(observations, noise)
    for chunk, fixture in zip(together, fixtures, strict=True):
        alone = policy.infer(fixture.observation, noise=fixture.noise).raw
        assert float(np.abs(chunk.raw - alone).max()) < 5e-3


@pytest.mark.parametrize(('rows', 'columns'), [(40, 48), (32, 40)])
def test_when_sizes_are_no_multiples_expect_the_weight_named_and_what_to_do(rows, columns):
    assert isinstance(mlp_weight(32, 48, CODES), Quantised)
    named = rf"weight is {rows} × {columns}, .*multiples of 16; choose 'bf16'$"
    with pytest.raises(PolicyError, match=named):
        mlp_weight(rows, columns, CODES)


def test_when_a_policy_has_such_sizes_expect_it_refused_at_fp8_alone(golden_bundle, monkeypatch):
    monkeypatch.setattr(quantised_module, 'MULTIPLE', 1024)
    load(golden_bundle('pi0'), 'bf16')
    with pytest.raises(PolicyError, match=r'language_model\.layers\.0\.mlp\.gate_proj') as caught:
        load(golden_bundle('pi0'), 'fp8')
    assert len(str(caught.value).splitlines()) == 1


def test_when_an_mlp_is_to_be_in_what_there_is_not_expect_it_named():
    with pytest.raises(ValueError, match='not in torch.float8_e5m2'):
        mlp_weight(32, 48, torch.float8_e5m2)


def mlp_weight(rows, columns, mlp_dtype):
    """Return a weight of an MLP as it is read."""
    source = ModuleParameters(torch.nn.Linear(columns, rows, bias=False), CPU)
    return merged_mlp(source, ['weight'], torch.bfloat16, mlp_dtype, None)


def test_when_a_row_is_put_in_8_bits_expect_each_number_rounded_to_3_bits_of_mantissa():
    values = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    values *= torch.tensor([1e-20, 1e-3, 1.0, 1e3, 0.0])[:, None]
    found = quantised(values)
    largest = found.codes.float().abs().amax(1)
    assert largest.tolist() == [LARGEST] * 4 + [0.0]
    error = (found.dequantised() - values).abs()
    least = found.scale[:, None] * 2.0**-10  # half of the smallest code
    assert bool((error <= torch.maximum(values.abs() * ROUNDING * 1.001, least)).all())
    assert float((error[2] / values[2].abs()).max()) > 0.5 * ROUNDING


def test_when_factors_are_in_8_bits_expect_their_product_of_sums_in_float32():
    generator = torch.Generator().manual_seed(2)
    x, weight = (quantised(torch.randn(n, 64, generator=generator)) for n in (3, 32))
    exact = x.dequantised().double() @ weight.dequantised().double().T
    found = product(x, weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2.0**-8, atol=1e-5)
    with pytest.raises(TypeError, match='one factor'):
        product(x.dequantised(), weight)


@pytest.mark.skipif(torch.version.cuda is None, reason='torch is built without CUDA')
@pytest.mark.parametrize(('depth', 'fast'), [(2048, True), (16384, False)])
def test_when_factors_are_on_a_gpu_expect_what_torch_takes_and_long_sums_in_float32(
    depth, fast, monkeypatch
):
    multiply, told = torch._scaled_mm, []

    def scaled_mm(*factors, **options):
        told.append(options['use_fast_accum'])
        return multiply(*factors, **options)

    monkeypatch.setattr(torch, '_scaled_mm', scaled_mm)
    with FakeTensorMode():  # shapes, strides and types only
        x, weight = (Quantised.empty(rows, depth, torch.device('cuda')) for rows in (817, 2048))
        found = product(x, weight)
    assert (found.shape, found.dtype, found.device.type) == ((817, 2048), torch.bfloat16, 'cuda')
    assert told == [fast]


@pytest.mark.parametrize(('capability', 'missing'), [
    ((8, 0), True), ((8, 6), True), ((8, 9), False), ((9, 0), False), ((12, 0), False),
])  # fmt: skip
def test_when_the_card_has_no_such_products_expect_what_it_needs(
    capability, missing, monkeypatch
):
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.cuda, 'init', lambda: None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'a card')
    torch_requirements.require_gpu('bf16')
    if not missing:
        torch_requirements.require_gpu('fp8')
        return
    with pytest.raises(PolicyError, match=r"a card .*\(8, 9\) is needed for .*'fp8'.*'bf16'") as e:
        torch_requirements.require_gpu('fp8')
    assert len(str(e.value).splitlines()) == 1
