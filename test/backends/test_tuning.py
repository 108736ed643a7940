# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which configurations a kernel may run with, on cards of any shared memory."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import tuning  # noqa: E402
from vla_deploy.backends.tuning import (  # noqa: E402
    cache_path,
    candidates,
    default,
    keep_tuning,
    load_tuning,
)

BF16 = torch.bfloat16
CARD, PAIR = 'NVIDIA H200', 'pair-64-4096-1024-4096'
OTHERS = ('linear-64-512-96', 'linear-64-768-96')  # in no table
HOPPER, SMALL = 227 << 10, 99 << 10
# of pi0: kind and sizes, of one observation and of eight
KERNELS = (
    ('pair', (64, 4096, 1024, 4096)), ('pair', (512, 4096, 1024, 4096)),
    ('linear', (64, 1024, 4096)), ('linear', (512, 1024, 4096)),
    ('attention', (816, 8, 1, 256)), ('attention', (816, 8, 1, 256, 8)),
)


@pytest.fixture
def card(monkeypatch):
    """Return bytes -> a card with so much shared memory for a program is the current one."""
    there = SimpleNamespace(shared_memory_per_block_optin=HOPPER)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda _: there)

    def use(shared_bytes):
        there.shared_memory_per_block_optin = shared_bytes
        tuning._bytes_of_blocks.cache_clear()

    yield use
    tuning._bytes_of_blocks.cache_clear()


def held(kind, sizes, config, size):
    """Return the bytes of a configuration's blocks."""
    if kind == 'attention':
        return sizes[3] * size * (config.rows + 2 * config.columns * config.stages)
    columns = config.columns * (2 if kind == 'pair' else 1)
    return (config.rows or sizes[0]) * config.depth * size * config.stages + (
        columns * config.depth * size * config.stages
    )


@pytest.mark.parametrize(('kind', 'sizes'), KERNELS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_when_a_card_has_less_shared_memory_expect_blocks_that_fit_it(kind, sizes, dtype, card):
    size = torch.finfo(dtype).bits // 8
    for there in (HOPPER, SMALL):
        card(there)
        most = max(held(kind, sizes, own, size) for own in candidates(kind, sizes, dtype))
        assert most < there
    assert held(kind, sizes, default(kind, sizes, dtype), size) < SMALL


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the file that is kept for the card."""
    monkeypatch.setenv('VLA_DEPLOY_CACHE', str(tmp_path / 'cache'))
    return cache_path(CARD, BF16)


def measure(known, key):
    """Measure a kernel, as it were."""
    kind, *sizes = key.split('-')
    known.set(key, [(1.0, candidates(kind, [int(size) for size in sizes], BF16)[-1])])


def test_when_one_kernel_was_measured_expect_only_that_one_kept(cache):
    known = load_tuning(CARD, BF16)
    assert known.knows(PAIR)  # by the table that comes with the package
    measure(known, OTHERS[0])
    keep_tuning(known, cache)
    assert list(json.loads(cache.read_text())) == [OTHERS[0]]


@pytest.mark.parametrize('before', [None, 'not a table'])
def test_when_two_processes_measure_at_once_expect_what_both_found(before, cache):
    both = [load_tuning(CARD, BF16) for _ in OTHERS]
    if before is not None:
        cache.parent.mkdir(parents=True)
        cache.write_text(before)
    for known, key in zip(both, OTHERS, strict=True):
        measure(known, key)
        keep_tuning(known, cache)
    assert all(load_tuning(CARD, BF16).knows(key) for key in OTHERS)


@pytest.mark.parametrize('row', [
    [0, 24, 64, 1, 4, 4], [0, 16, 63, 1, 4, 4], [0, 16, 64, 1, 3, 4], [0, 16, 64, 1, 4, 99],
    [0, -16, 64, 1, 4, 4], [0, 0, 0, 1, 4, 1],
])  # fmt: skip
def test_when_a_table_holds_what_a_kernel_cannot_run_with_expect_it_measured_anew(row, cache):
    cache.parent.mkdir(parents=True)
    good = dataclasses.astuple(default('linear', (64, 768, 96), BF16))
    cache.write_text(json.dumps({OTHERS[0]: row, OTHERS[1]: good, 'pair-64': row, 'of-1': row}))
    known = load_tuning(CARD, BF16)
    assert not known.knows(OTHERS[0])
    assert not known.knows('pair-64')
    assert known.knows(OTHERS[1])


def test_when_a_table_comes_with_the_package_expect_all_of_it_in_use(cache):
    for path in tuning.SHIPPED.glob('*_bfloat16.json'):
        known = load_tuning(path.name.removesuffix('_bfloat16.json'), BF16)
        assert all(known.knows(key) for key in json.loads(path.read_text()))


@pytest.mark.parametrize('changed', ['driver', 'kernels', 'triton', 'torch'])
def test_when_what_times_depend_on_changes_expect_another_file(
    changed, cache, tmp_path, monkeypatch
):
    (tmp_path / 'triton_rows.py').write_text('a kernel')
    if changed == 'driver':
        (tmp_path / 'version').write_text('NVRM version: 580.65.06')
        monkeypatch.setattr(tuning, 'DRIVER', tmp_path / 'version')
    elif changed == 'kernels':
        monkeypatch.setattr(tuning, 'HERE', tmp_path)
    elif changed == 'triton':
        monkeypatch.setattr(tuning.metadata, 'version', lambda _: '9.9')
    else:
        monkeypatch.setattr(torch, '__version__', '9.9')
    tuning._measured_with.cache_clear()
    try:
        assert cache_path(CARD, BF16) != cache
    finally:
        tuning._measured_with.cache_clear()
