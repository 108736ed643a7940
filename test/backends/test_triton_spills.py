# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels that keep in memory what there are no registers for are not measured where others fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

torch = pytest.importorskip('torch')
triton = pytest.importorskip('triton', reason='Triton comes with a CUDA build of torch')

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, compiler  # noqa: E402
from triton.runtime.errors import OutOfResources  # noqa: E402

from vla_deploy.backends.triton_launch import (  # noqa: E402
    LOADING,
    Launcher,
    SpillsError,
    refuse_spills,
)
from vla_deploy.backends.triton_tuning import Recorded, compiled  # noqa: E402

THREADS = 12
HOPPER = GPUTarget('cuda', 90, 32)


class Spilling:
    """Stands for a kernel of Triton's, whose candidates of some depths spill registers."""

    def __init__(self, depths):
        self._depths = depths

    def warmup(self, config, **_):
        spills = 500 if config.depth in self._depths else 0
        return SimpleNamespace(_init_handles=lambda: None, name='kernel', n_spills=spills)


@pytest.mark.parametrize(
    ('spilling', 'left'),
    [((), {64, 128, 256}), ((64, 128), {256}), ((64, 128, 256), {64, 128, 256})],
)
def test_when_candidates_spill_registers_expect_them_measured_only_where_all_do(spilling, left):
    sizes, launcher, kernel = (50, 720, 2048), Launcher(overlap=False), Spilling(spilling)
    launcher._compile_only = True

    def call(config):
        if config.depth in left | set(spilling):
            launcher._launch(kernel, (1,), config, (config,))
        else:
            raise triton.runtime.errors.OutOfResources(1, 0, 'shared memory')

    recorded = {'linear': Recorded('linear', sizes, [call])}
    found = compiled(recorded, torch.bfloat16, None)['linear']
    assert {config.depth for config in found} == left


@triton.jit
def add_one(x, COUNT: tl.constexpr):
    at = x + tl.arange(0, COUNT)
    tl.store(at, tl.load(at) + 1.0)


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Return a function that gives a kernel as Triton compiles it, for a card that there is not:
    what loads it says how much it spills. No two threads load at a time."""
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))

    def compile_it(spills, shared_memory):
        def load_binary(*_):
            assert LOADING.locked()
            return 1, 2, 32, spills, 1024

        card = SimpleNamespace(
            utils=SimpleNamespace(load_binary=load_binary), get_current_device=lambda: 0,
            launcher_cls=lambda *_: None, get_current_target=lambda: HOPPER,
        )
        monkeypatch.setattr(compiler.driver, '_active', card, raising=False)
        monkeypatch.setattr(compiler, 'max_shared_mem', lambda _: shared_memory)
        source = ASTSource(add_one, {'x': '*fp32', 'COUNT': 'constexpr'}, {(1,): 128})
        return compiler.compile(source, target=HOPPER)

    return compile_it


@pytest.mark.parametrize(
    ('spills', 'shared_memory', 'expected'),
    [(0, 1 << 20, None), (500, 1 << 20, SpillsError), (0, -1, OutOfResources)],
)
def test_when_threads_share_a_candidate_expect_all_told_the_same(
    spills, shared_memory, expected, kernel
):
    candidate = kernel(spills, shared_memory)

    def told(_):
        try:
            refuse_spills(candidate)
        except (SpillsError, OutOfResources) as error:
            return type(error)
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        assert set(pool.map(told, range(3 * THREADS))) == {expected}
