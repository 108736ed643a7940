# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The torch backend on the CPU: the modules that serve on a GPU, against the ONNX bundle."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from vla_deploy.backends import torch_cuda, torch_requirements, weights_file  # noqa: E402
from vla_deploy.backends.fused_inputs import Inputs, bucket_of  # noqa: E402
from vla_deploy.backends.fused_layers import norm_of_sum  # noqa: E402
from vla_deploy.backends.fused_policy import FusedPolicy  # noqa: E402
from vla_deploy.backends.parameters import (  # noqa: E402
    BundleParameters,
    Factor,
    FileParameters,
    ModuleParameters,
)
from vla_deploy.backends.step_constants import ALIGNMENT_BYTES, PackedConstants  # noqa: E402
from vla_deploy.backends.torch_ops import TorchOps  # noqa: E402
from vla_deploy.export.families import family_of  # noqa: E402
from vla_deploy.export.golden import golden_checkpoint  # noqa: E402
from vla_deploy.models.pi import Pi, PiConfig  # noqa: E402
from vla_deploy.models.published import PUBLISHED  # noqa: E402
from vla_deploy.models.smolvla import SmolVLA  # noqa: E402
from vla_deploy.pipeline import Policy, PolicyError  # noqa: E402
from vla_deploy.pipeline.backend import BackendOptions  # noqa: E402
from vla_deploy.pipeline.bundle import PARAMETERS, open_bundle, seal_receipt  # noqa: E402
from vla_deploy.pipeline.fixtures import read_fixtures  # noqa: E402
from vla_deploy.pipeline.sampler import Haste  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread')
GOLDENS = Path(__file__).parents[1] / 'goldens'
SETS = ('pi0', 'pi05', 'smolvla_2cam_empty')
CPU = torch.device('cpu')
# Operators that torch dispatches for one chunk at full size, in inference mode.
OPERATOR_BUDGET = {'pi0': 11_000, 'pi05': 14_000, 'smolvla': 9_500}
# The process may hold so much of a weights file while it loads, over what it held before.
RESIDENT_SHARE = 0.35
FILE_BYTES = 400 << 20
EPS = 1e-5


def chunks(policy, bundle):
    """Return the raw chunks of a bundle's fixtures."""
    fixtures = read_fixtures(bundle / 'fixtures.npz', policy.contract)
    return [policy.infer(f.observation, noise=f.noise).raw for f in fixtures]


@pytest.mark.parametrize('variant', torch_requirements.VARIANTS)
@pytest.mark.parametrize('name', SETS)
def test_when_served_in_float32_expect_the_chunks_of_the_onnx_bundle(
    name, variant, serve, golden_bundle
):
    policy = serve(name, variant=variant)
    onnx = Policy.load(golden_bundle(name), threads=1)
    assert policy.self_test().passed
    for ours, theirs in zip(
        chunks(policy, golden_bundle(name)), chunks(onnx, golden_bundle(name)), strict=True
    ):
        assert float(np.abs(ours - theirs).max()) < 5e-6


def test_when_the_precision_changes_expect_its_rounding_in_the_chunk(serve, golden_bundle):
    bundle = golden_bundle('pi0')
    exact = np.stack(chunks(serve('pi0'), bundle))
    rounded = np.stack(chunks(serve('pi0', precision='bf16'), bundle))
    error = float(np.linalg.norm(rounded - exact) / np.linalg.norm(exact))
    assert 1e-4 < error < 2e-2


def test_when_parameters_are_read_in_spans_expect_the_checkpoints_parameters(
    golden_bundle, monkeypatch
):
    monkeypatch.setattr(weights_file, 'SPAN_BYTES', 4096)
    checkpoint = golden_checkpoint(GOLDENS / 'smolvla_2cam_empty')
    module, _ = family_of(checkpoint).load(checkpoint)
    source = BundleParameters(open_bundle(golden_bundle('smolvla_2cam_empty')), CPU)
    own = ModuleParameters(module, CPU)
    assert source.config == module.config
    pairs, vectors = {}, {own.numel(): n for n, own in module.named_parameters() if own.dim() == 1}
    for name, value in module.named_parameters():
        assert torch.equal(source.read(name), value), name
        if value.dim() == 2:
            factor = Factor(0.3, vectors.get(value.shape[1]))
            filled = [torch.empty(value.shape, dtype=torch.bfloat16) for _ in range(2)]
            source.fill(filled[0], name, factor)
            own.fill(filled[1], name, factor)
            pairs[name] = filled
    source.finish()
    for name, filled in pairs.items():
        assert torch.equal(*filled), name
    assert any(own.shape[1] in vectors for own in module.parameters() if own.dim() == 2)


def test_when_the_file_ends_before_its_table_does_expect_the_parameter_named(
    golden_bundle, tmp_path
):
    source = golden_bundle('pi0')
    table = json.loads((source / PARAMETERS).read_bytes())['tensors']
    last = max(table, key=lambda name: table[name]['offset'])
    path = tmp_path / 'weights.bin'
    path.write_bytes((source / 'weights.bin').read_bytes()[: table[last]['offset'] + 100])
    found = FileParameters(path, table, CPU)

    found.fill(torch.empty(found.shape(last)), last)
    with pytest.raises(PolicyError, match=f'ends before {last}; export again'):
        found.finish()


@torch.inference_mode()
def test_when_weights_come_after_what_is_made_of_them_expect_it_made_again_in_place(serve):
    backend = serve('pi05')._backend
    policy, time = backend._policy, backend._steps[0]
    right = [t.clone() for t in tensors_of(backend._constants_of(time).views)]
    scale, weights = policy._last_norm[0], policy._last_norm[0].clone()
    backend._constants.clear()
    scale.fill_(torch.nan)  # as memory may be that was not yet filled
    early = backend._constants_of(time).views
    assert early.last_scale.isnan().any()
    scale.copy_(weights)
    backend.renew_constants()
    assert all(torch.equal(a, b) for a, b in zip(right, tensors_of(early), strict=True))


def test_when_a_times_constants_are_packed_expect_them_in_one_place_and_aligned(serve):
    policy = serve('pi05')._backend._policy
    given = policy.constants(np.ones(policy.width, np.float32))
    packed = PackedConstants(given, CPU)
    pairs = zip(tensors_of(given), tensors_of(packed.views), strict=True)
    begin = packed.buffer.data_ptr()
    for theirs, ours in pairs:
        assert torch.equal(theirs, ours)
        assert (ours.data_ptr() - begin) % ALIGNMENT_BYTES == 0
        assert begin <= ours.data_ptr() < begin + len(packed.buffer)


def tensors_of(constants):
    """Return the tensors of a step's constants, in order."""
    found = []
    constants.changed(lambda tensor: found.append(tensor) or tensor)
    return found


@torch.inference_mode()
def test_when_only_products_are_run_expect_no_other_arithmetic(serve):
    backend = serve('smolvla_2cam_empty')._backend
    policy, config = backend._policy, backend._policy.config
    bucket = bucket_of(config, config.camera_slots, config.max_tokens)
    policy.length.fill_(1)
    inputs = backend._inputs_of(bucket)
    with _Count() as whole:
        policy.prefix_without_state(inputs)
    with _Count() as products:
        policy.load_products(inputs)
    assert any('norm' in str(f) for f in whole.functions)
    assert not any('norm' in str(f) for f in products.functions)
    multiplied = {f for f in whole.functions if 'mm' in str(f)}
    assert multiplied - products.functions == set()


@pytest.mark.parametrize('name', SETS)
@torch.inference_mode()
def test_when_kernels_are_loaded_expect_those_of_the_language_layers_and_no_product(
    name, serve, monkeypatch
):
    backend = serve(name)._backend
    policy, config = backend._policy, backend._policy.config
    inputs = backend._inputs_of(bucket_of(config, config.camera_slots, config.max_tokens))
    called = []

    def note(operation):
        right = getattr(policy.ops, operation)

        def noted(*given):
            called.append((operation, given[0].shape))
            return right(*given)

        monkeypatch.setattr(policy.ops, operation, noted)

    for operation in ('norm', 'rope', 'attend', 'activate'):
        note(operation)
    policy.length.fill_(config.camera_slots * config.tokens_per_image + policy.state_rows)
    policy.prefix_without_state(inputs)
    whole = called.copy()
    called.clear()
    with _Count() as counted, monkeypatch.context() as patch:
        patch.setattr(policy.ops, 'attend', lambda queries, *_: queries.flatten(1))
        policy.load_kernels(inputs)
    assert not any('mm' in str(function) for function in counted.functions)
    assert called == [own for own in whole if own[0] != 'attend']


def test_when_a_sum_is_long_expect_its_parts_to_make_the_whole_product():
    rows, width = 5, 32
    x, weight = torch.randn(rows, width), torch.randn(width, 6 * width)
    y = torch.randn(rows, 6 * width)
    whole = x + y @ weight.T
    with _Count() as counted:
        normed = norm_of_sum(TorchOps(), x, y, weight, EPS)
    assert torch.ops.aten.bmm.default in counted.functions
    torch.testing.assert_close(x, whole)
    torch.testing.assert_close(normed, torch.nn.functional.rms_norm(whole, (width,), eps=EPS))


def test_when_texts_are_of_several_lengths_expect_one_place_for_images(golden_bundle):
    backend = torch_cuda.load(open_bundle(golden_bundle('pi0')), BackendOptions(provider='cpu'))
    config = backend._policy.config
    sizes = [(1, 1), (2, 1), (2, config.max_tokens)]
    one, two, longer = (backend._inputs_of(bucket_of(config, *size)) for size in sizes)
    assert two.tokens.numel() < longer.tokens.numel()
    assert two.images is longer.images
    assert len(one.images) == 1


def test_when_a_large_file_is_loaded_expect_little_of_it_in_memory(tmp_path):
    script = f"""
import resource, torch
from pathlib import Path
from vla_deploy.backends.parameters import FileParameters
path, cpu = Path({str(tmp_path / 'weights.bin')!r}), torch.device('cpu')
entry = {{'shape': [25600, 4096], 'offset': 0, 'transposed': True}}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = FileParameters(path, {{'weight': entry}}, cpu)
source.fill(torch.empty((25600, 4096), device='meta'), 'weight')
source.finish()
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""
    with open(tmp_path / 'weights.bin', 'wb') as file:
        file.truncate(FILE_BYTES)
    found = subprocess.run(
        [sys.executable, '-c', script], check=True, capture_output=True, text=True
    )
    assert int(found.stdout) < RESIDENT_SHARE * FILE_BYTES


def test_when_the_bundle_has_no_table_of_parameters_expect_to_export_again(
    golden_bundle, tmp_path
):
    folder = golden_bundle('pi0')
    for path in folder.iterdir():
        if path.name != PARAMETERS:
            (tmp_path / path.name).symlink_to(path)
    receipt = json.loads((folder / 'receipt.json').read_bytes())
    del receipt['files'][PARAMETERS]
    (tmp_path / 'receipt.json').unlink()
    (tmp_path / 'receipt.json').write_bytes(seal_receipt(receipt))
    with pytest.raises(PolicyError, match=f'holds no {PARAMETERS}.*export again'):
        Policy.load(tmp_path, backend='torch_cuda', provider='cpu')


def test_when_a_policy_continues_its_previous_chunk_expect_another_backend_named(
    plain_bundle, plain_contract
):
    contract = dataclasses.replace(plain_contract, reserved_inputs=('prev_chunk', 'delay'))
    with pytest.raises(PolicyError, match="continues its previous chunk.*'onnx_runtime'"):
        Policy.load(plain_bundle(contract), backend='torch_cuda', provider='cpu')


def test_when_there_are_no_threads_expect_it_said_as_by_any_backend(plain_bundle):
    with pytest.raises(PolicyError, match='threads is -1, but must be at least 1'):
        Policy.load(plain_bundle(), backend='torch_cuda', provider='cpu', threads=-1)


def test_when_chunks_come_in_one_run_expect_the_steps_apart_all_the_same(serve):
    policy = serve('pi0', variant='unrolled')
    assert policy.takes_steps_apart
    fixture = read_fixtures(policy._bundle.path / 'fixtures.npz', policy.contract)[0]
    chunk = policy.infer(fixture.observation, haste=Haste(deadline_s=time.perf_counter() + 60.0))
    assert chunk.finite


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_when_there_is_no_gpu_expect_one_line_that_says_what_to_do(serve):
    with pytest.raises(PolicyError, match="choose provider 'cpu'") as caught:
        serve('pi0', provider='cuda')
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ('option', 'value'), [('provider', 'tensorrt'), ('precision', 'int8'), ('variant', 'loop')]
)
def test_when_an_option_is_not_possible_expect_the_possible_ones(serve, option, value):
    with pytest.raises(PolicyError, match=f'{option}.*{value}.*possible: '):
        serve('pi0', **{option: value})


def test_when_sizes_do_not_fit_the_kernels_expect_the_size_named():
    for config in PUBLISHED.values():
        torch_cuda.require_sizes(config)
    pi0 = PUBLISHED['pi0']
    small = dataclasses.replace(pi0.expert, intermediate_size=100)
    for key, config in {
        'chunk_size is 128': dataclasses.replace(pi0, chunk_size=128),
        '100 features': dataclasses.replace(pi0, expert=small),
        'head_dim is 16': small_heads(),
    }.items():
        with pytest.raises(PolicyError, match=f'{key}.*choose backend onnx_runtime'):
            torch_cuda.require_sizes(config)


def small_heads():
    """Return sizes of a model with small heads."""
    heads = {'head_dim': 16}
    pi0 = PUBLISHED['pi0']
    return dataclasses.replace(
        pi0,
        text=dataclasses.replace(pi0.text, **heads),
        expert=dataclasses.replace(pi0.expert, **heads),
    )


@pytest.mark.parametrize('name', ['smolvla_2cam_empty', 'pi0', 'pi05'])
@torch.inference_mode()
def test_when_the_first_step_runs_beside_the_prefix_expect_the_bits_of_one_after_the_other(
    serve, name
):
    policy = serve(name, precision='fp32')._backend._policy
    config = policy.config
    bucket = bucket_of(config, config.camera_slots, config.max_tokens)
    inputs = Inputs.empty(config, bucket, torch.float32, torch.device('cpu'))
    generator = torch.Generator().manual_seed(5)
    inputs.images.normal_(generator=generator)
    inputs.state.normal_(generator=generator)
    x = torch.randn(config.chunk_size, config.max_action_dim, generator=generator)
    dt = torch.full((config.max_action_dim,), -0.1)
    policy.length.fill_(
        config.camera_slots * config.tokens_per_image + bucket.tokens + policy.state_rows
    )
    constants = policy.constants(np.linspace(-1, 1, policy.width, dtype=np.float32))
    beside = policy.prefix_and_first_step(inputs, x, dt, constants)
    keys = policy.keys.clone()
    policy.keys.zero_()
    policy.prefix_without_state(inputs)
    after = policy.first_step(inputs, x, dt, constants)
    assert all(torch.equal(a, b) for a, b in zip(beside, after, strict=True))
    assert torch.equal(keys, policy.keys)
    assert not torch.equal(beside[0], x)


@pytest.mark.parametrize('name', PUBLISHED)
def test_when_a_chunk_is_made_at_full_size_expect_no_more_operators_than_budgeted(name):
    config, meta = PUBLISHED[name], torch.device('meta')
    with meta:
        module = (Pi if isinstance(config, PiConfig) else SmolVLA)(config)
    with torch.inference_mode():
        policy = FusedPolicy(config, ModuleParameters(module, meta), torch.bfloat16, TorchOps())
        bucket = bucket_of(config, config.camera_slots, config.max_tokens)
        inputs = Inputs.empty(config, bucket, torch.bfloat16, meta)
        x = torch.zeros(config.chunk_size, config.max_action_dim, device=meta)
        dt = torch.zeros(config.max_action_dim, device=meta)
        constants = policy.constants(np.zeros(policy.width, np.float32))
        with _Count() as counted:
            x, _ = policy.prefix_and_first_step(inputs, x, dt, constants)
            for _ in range(config.num_steps - 1):
                x, _ = policy.step(x, dt, constants)
    assert x.shape == (config.chunk_size, config.max_action_dim)
    assert 0.8 * OPERATOR_BUDGET[name] < counted.operators <= OPERATOR_BUDGET[name]


class _Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operators = 0
        self.functions = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.operators += 1
        self.functions.add(function)
        return function(*arguments, **(keywords or {}))
