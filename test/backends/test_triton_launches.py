# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which Triton kernels a start launches before it captures graphs, at full size and without a card:
tensors have shapes and places only, and what is compiled of a kernel is a stand-in."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

torch = pytest.importorskip('torch')
triton = pytest.importorskip('triton', reason='Triton comes with a CUDA build of torch')

from vla_deploy.backends import (  # noqa: E402
    triton_attention,
    triton_products,
    triton_rows,
    triton_tuned,
)
from vla_deploy.backends.fused_inputs import Inputs, bucket_of  # noqa: E402
from vla_deploy.backends.fused_policy import FusedPolicy  # noqa: E402
from vla_deploy.backends.parameters import ModuleParameters  # noqa: E402
from vla_deploy.backends.product_ops import ProductOps  # noqa: E402
from vla_deploy.backends.torch_cuda import DTYPES, MLP_DTYPES, TorchCudaBackend  # noqa: E402
from vla_deploy.backends.torch_ops import Inline  # noqa: E402
from vla_deploy.backends.triton_ops import TritonOps  # noqa: E402
from vla_deploy.backends.tuning import Tuning, default, load_tuning  # noqa: E402
from vla_deploy.core.contract import TimeEmbedding  # noqa: E402
from vla_deploy.models.pi import Pi, PiConfig  # noqa: E402
from vla_deploy.models.published import PUBLISHED  # noqa: E402
from vla_deploy.models.smolvla import SmolVLA  # noqa: E402

META, CARD, BATCH = torch.device('meta'), 'NVIDIA H200', 2


class Kernel:
    """Stands for a kernel of Triton's."""

    def __init__(self, kernel):
        self.arg_names = kernel.arg_names

    def __getitem__(self, grid):
        return lambda *_arguments, **_constants: Compiled()


class Compiled:
    """Stands for what is compiled of it."""

    def __init__(self):
        self.asm = {}

    def __getitem__(self, grid):
        return lambda *_values: None


class Crossing(Inline):
    """Stands for a second stream: what follows a crossing starts apart, as kernels then do."""

    def __init__(self, crossed):
        self._crossed = crossed

    def __exit__(self, *_):
        self._crossed()

    @contextmanager
    def behind(self):
        self._crossed()
        yield


class Ops(TritonOps):
    """Those of a card with programmatic dependent launch, on streams that a card would have."""

    def side(self):
        return Crossing(self._set_apart)


class Measured(Tuning):
    """What is known of a card, as if all sizes had been measured."""

    def knows(self, key):
        return True


@pytest.fixture
def policy(monkeypatch, tmp_path):
    """Return family, precision -> the policy at full size, whose operations keep by what each
    kernel is compiled; see Launcher."""
    monkeypatch.setenv('VLA_DEPLOY_CACHE', str(tmp_path))
    for module in (triton_attention, triton_products, triton_rows):
        for name, value in list(vars(module).items()):
            if name.endswith('_kernel'):
                monkeypatch.setattr(module, name, Kernel(value))

    def make(name, precision='bf16', batch=BATCH):
        config, dtype = PUBLISHED[name], DTYPES[precision]
        with META:
            module = (Pi if isinstance(config, PiConfig) else SmolVLA)(config)
        ops = Ops(META, dtype, Measured(load_tuning(CARD, dtype)._configs), overlap=True)
        return FusedPolicy(
            config, ModuleParameters(module, META), dtype, ops, batch, MLP_DTYPES.get(precision)
        )

    return make


@pytest.mark.parametrize(('unrolled', 'batch'), [(True, 1), (True, BATCH), (False, 1)])
@pytest.mark.parametrize('precision', ['bf16', 'fp8', 'fp16'])
@pytest.mark.parametrize('name', PUBLISHED)
@torch.inference_mode()
def test_when_no_kernel_was_measured_expect_all_launched_before_a_graph_is_captured(
    name, precision, unrolled, batch, policy, monkeypatch
):
    own = policy(name, precision, batch)
    config, compiled, captured = own.config, own.ops._compiled, []
    contract = SimpleNamespace(
        time_embedding=TimeEmbedding(own.width, config.min_period, config.max_period),
        denoise_steps=config.num_steps, cameras=range(config.camera_slots),
    )
    backend = TorchCudaBackend(own, contract, unrolled, None)

    def capture(function, rehearsal=None, multiplies=True):
        assert rehearsal is None
        before = set(compiled)
        function()
        assert set(compiled) == before
        captured.append(function)
        return function

    for captures in (backend._captures, backend._step_captures):
        monkeypatch.setattr(captures, 'of', capture)
    backend.prepare(lambda: None)
    assert len(captured) == len(backend._runs)
    assert len(compiled) > 10


@pytest.mark.parametrize('name', PUBLISHED)
@torch.inference_mode()
def test_when_only_products_are_run_expect_no_kernel_launched(name, policy, monkeypatch):
    own = policy(name)
    inputs = Inputs.empty(own.config, bucket_of(own.config, 1, 1, BATCH), own.dtype, META)

    def fail(*_, **__):
        raise AssertionError('a kernel was launched')

    monkeypatch.setattr(own.ops, '_launch', fail)
    own.tower.run(ProductOps(own.ops), inputs.images)
    own.load_products(inputs)
    with pytest.raises(AssertionError, match='a kernel was launched'):
        own.load_kernels(inputs)


@torch.inference_mode()
def test_when_sizes_were_not_measured_expect_them_measured_before_any_graph_and_only_that_kept(
    policy, monkeypatch
):
    own, order = policy('smolvla', batch=1), []
    own.ops.tuning = Tuning()  # which knows no size
    own.ops._kept = kept = SimpleNamespace(used={'of before'}, save=lambda: order.append('saved'))

    def measure(missing, _options, tuning):
        order.append('measured')
        kept.used.add('tried')
        for key, found in missing.items():
            tuning.set(key, [(1.0, default(found.kind, found.sizes, torch.bfloat16))])

    monkeypatch.setattr(triton_tuned, 'compiled', lambda missing, *_: {key: [] for key in missing})
    monkeypatch.setattr(triton_tuned, 'measure_each', measure)
    monkeypatch.setattr(triton_tuned, 'refine', lambda *_: order.append('refined'))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: CARD)
    contract = SimpleNamespace(
        time_embedding=TimeEmbedding(own.width, own.config.min_period, own.config.max_period),
        denoise_steps=own.config.num_steps, cameras=range(own.config.camera_slots),
    )
    backend = TorchCudaBackend(own, contract, True, None)
    for captures in (backend._captures, backend._step_captures):
        monkeypatch.setattr(
            captures, 'of', lambda function, *_, **__: order.append('captured') or function
        )
    backend.prepare(lambda: order.append('weights are there'))
    assert order == [
        'weights are there', 'measured', 'refined', *['captured'] * len(backend._runs), 'saved',
    ]  # fmt: skip
    assert own.ops.measured(lambda: own.step(backend._x, backend._dt, backend._current.views))
    assert kept.used == {'of before'}
