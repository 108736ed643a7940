# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which configurations a kernel may run with, on cards of any shared memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import tuning  # noqa: E402
from vla_deploy.backends.tuning import candidates, default  # noqa: E402

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
