# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the torch backend asks of a device and does with it, on stand-ins: no card is needed."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import torch_cuda  # noqa: E402
from vla_deploy.backends.fused_inputs import bucket_of  # noqa: E402
from vla_deploy.backends.product_ops import KernelOps  # noqa: E402
from vla_deploy.backends.torch_device import WORKSPACE, launch_early, limit_workspace  # noqa: E402
from vla_deploy.backends.torch_ops import LibraryProducts, Ops  # noqa: E402
from vla_deploy.pipeline import PolicyError  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_thread')
VARIABLE = 'CUBLAS_WORKSPACE_CONFIG'


@pytest.fixture
def card(monkeypatch):
    """Return what lets a card of a compute capability be there."""

    def put(capability):
        for name, value in {
            'get_device_capability': capability,
            'get_device_name': 'a card',
            'mem_get_info': (1 << 30, 8 << 30),
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda value=value: value)

    return put


@pytest.fixture
def environment(monkeypatch):
    """Let the variable be unset, and be as it was afterwards."""
    monkeypatch.setenv(VARIABLE, '')
    monkeypatch.delenv(VARIABLE)


@pytest.mark.usefixtures('environment')
@pytest.mark.parametrize(('capability', 'expected'), [
    ((8, 9), None), ((9, 0), WORKSPACE), ((12, 0), None),
])  # fmt: skip
def test_when_a_card_is_not_of_hoppers_expect_its_products_to_keep_what_torch_gives_them(
    capability, expected, card
):
    card(capability)
    limit_workspace()
    assert os.environ.get(VARIABLE) == expected


def test_when_the_process_has_said_how_much_products_may_have_expect_it_kept(card, monkeypatch):
    monkeypatch.setenv(VARIABLE, ':16:8')
    card((9, 0))
    limit_workspace()
    assert os.environ[VARIABLE] == ':16:8'


@pytest.mark.parametrize(('precision', 'batch', 'capability', 'choose'), [
    ('fp32', 1, (9, 0), ', or choose bf16'),
    ('fp32', 2, (9, 0), ', or choose bf16 or a smaller batch'),
    ('bf16', 1, (9, 0), ', or choose fp8'),
    ('bf16', 2, (8, 6), ', or choose a smaller batch'),
    ('fp16', 1, (8, 9), ', or choose fp8'),
    ('fp8', 1, (9, 0), ''),
])  # fmt: skip
def test_when_a_policy_does_not_fit_expect_only_what_needs_less(
    precision, batch, capability, choose, card, serve, monkeypatch
):
    def fail(*_):
        raise torch.OutOfMemoryError

    card(capability)
    monkeypatch.setattr(torch_cuda, 'make_policy', fail)
    expected = (
        f'does not fit at {precision} on a card \\(1.0 of 8.0 GiB free\\); '
        f'stop what else uses it{choose}$'
    )
    with pytest.raises(PolicyError, match=expected):
        serve('pi0', precision=precision, batch=batch, variant='unrolled')


@torch.inference_mode()
def test_when_kernels_are_launched_early_expect_triton_awake_before_the_first(serve, monkeypatch):
    backend, called = serve('pi0')._backend, []
    policy = backend._policy

    def note(name):
        right = getattr(policy.ops, name)

        def noted(*given):
            called.append(name)
            return right(*given)

        monkeypatch.setattr(policy.ops, name, noted)

    for name in public(Ops):
        note(name)
    inputs = backend._inputs_of(bucket_of(policy.config, policy.config.camera_slots, 1))
    constants = policy.constants(backend._steps[0])
    assert launch_early(policy.shortest(), [inputs], constants)
    assert called[0] == 'awake'
    assert called.count('awake') == 1
    assert {'leave', 'norm', 'add_norm'} <= set(called)  # of a step, language layers and tower


def test_when_kernels_are_loaded_without_products_expect_all_products_left_out():
    assert public(LibraryProducts) <= public(KernelOps)


def public(kind):
    """Return the names of the operations that a class itself defines."""
    return {name for name in vars(kind) if not name.startswith('_')}
