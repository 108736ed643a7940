# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What Triton names itself by, which compiled kernels are found again with."""

from __future__ import annotations

import os

import pytest

triton = pytest.importorskip('triton')

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.runtime import cache  # noqa: E402

from vla_deploy.backends import triton_identity  # noqa: E402
from vla_deploy.backends.triton_identity import identity, tell_by_files  # noqa: E402
from vla_deploy.backends.triton_rows import glu_kernel  # noqa: E402

VERSION = '3.6.0'


@pytest.fixture
def installed(tmp_path):
    """Return a folder with files, as of a package."""
    for name in ('_C/lib.so', 'compiler/code.py', '__pycache__/code.pyc'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'content')
    return tmp_path


def change_size(folder):
    path = folder / '_C/lib.so'
    time = path.stat().st_mtime_ns
    path.write_bytes(b'contents')
    os.utime(path, ns=(time, time))


def change_time(folder):
    os.utime(folder / 'compiler/code.py', ns=(1, 1))


def add_a_file(folder):
    (folder / 'compiler/more.py').write_bytes(b'')


def remove_a_file(folder):
    (folder / 'compiler/code.py').unlink()


@pytest.mark.parametrize('change', [change_size, change_time, add_a_file, remove_a_file])
def test_when_what_is_installed_changes_expect_another_name(change, installed):
    before = identity(installed, VERSION)
    assert identity(installed, VERSION) == before
    change(installed)
    assert identity(installed, VERSION) != before
    assert identity(installed, '3.7.0') != identity(installed, VERSION)


def test_when_python_keeps_what_it_translated_expect_the_same_name(installed):
    before = identity(installed, VERSION)
    (installed / '__pycache__/more.pyc').write_bytes(b'')
    assert identity(installed, VERSION) == before


def test_when_the_folder_cannot_be_read_expect_it_said(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        identity(tmp_path / 'nowhere', VERSION)


def compiled():
    """Return the name that a kernel, compiled for a card, has in Triton's cache."""
    names = glu_kernel.arg_names
    constants = {'FEATURES': 8, 'SILU': True, 'BLOCK': 8, 'K': 0, 'BLOCKS': 0, 'PADDED': 1,
                 'ROWS': 0, 'BIAS': False, 'QUANTISE': False, 'PDL': False}  # fmt: skip
    assert set(constants) == {own.name for own in glu_kernel.params if own.is_constexpr}
    signature = {
        name: 'constexpr' if name in constants else 'fp32' if name == 'eps' else '*bf16'
        for name in names
    }
    fixed = {(index,): constants[name] for index, name in enumerate(names) if name in constants}
    source = ASTSource(glu_kernel, signature, fixed, {})
    return triton.compile(source, target=GPUTarget('cuda', 90, 32)).hash


@pytest.mark.skipif(
    triton.__version__ not in triton_identity.TESTED, reason='this Triton hashes itself'
)
def test_when_told_by_files_expect_kernels_found_again_without_hashing_triton(
    tmp_path, monkeypatch
):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    own, hashed = cache.triton_key, []
    monkeypatch.setattr(cache, 'triton_key', lambda: hashed.append(1) or own())
    by_bytes = compiled()
    assert hashed == [1]
    tell_by_files()
    by_files = compiled()
    assert hashed == [1]
    assert by_files != by_bytes
    kept = set(tmp_path.iterdir())
    assert len(kept) == 2
    assert compiled() == by_files
    assert set(tmp_path.iterdir()) == kept


def test_when_triton_is_of_another_version_expect_it_to_hash_itself(monkeypatch):
    own = cache.triton_key
    monkeypatch.setattr(triton, '__version__', '0.0.1')
    tell_by_files()
    assert cache.triton_key is own
