# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A kernel that Triton does not compile is told by the line at fault and why, in one line."""

from __future__ import annotations

import pytest

pytest.importorskip('torch')
triton = pytest.importorskip('triton', reason='Triton comes with a CUDA build of torch')

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from vla_deploy.backends.device_errors import told  # noqa: E402
from vla_deploy.pipeline import PolicyError  # noqa: E402


@triton.jit
def places(COUNT: tl.constexpr):
    return tl.arange(0, COUNT)


@triton.jit
def add_one(x, COUNT: tl.constexpr):
    at = x + places(COUNT)
    tl.store(at, tl.load(at) + 1.0)


@triton.jit
def add_unknown(x, COUNT: tl.constexpr):
    tl.store(x, x_that_is_not_there)  # noqa: F821


@pytest.mark.parametrize(
    ('kernel', 'line', 'why'),
    [
        (add_one, r'return tl\.arange\(0, COUNT\)', 'power of 2'),
        (add_unknown, r'tl\.store\(x, x_that_is_not_there\).*', 'x_that_is_not_there is not def'),
    ],
)
def test_when_a_kernel_does_not_compile_expect_its_line_and_why(
    kernel, line, why, monkeypatch, tmp_path
):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    source = ASTSource(kernel, {'x': '*fp32', 'COUNT': 'constexpr'}, {(1,): 100})
    expected = f"^here: Triton does not compile '{line}': .*{why}.*; install the triton that fits"
    with pytest.raises(PolicyError, match=expected) as caught, told('here'):
        triton.compile(source, target=GPUTarget('cuda', 90, 32))
    assert '\n' not in str(caught.value)
