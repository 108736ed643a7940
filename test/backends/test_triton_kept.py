# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Where Triton's compiled kernels are kept, and of which Triton."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('triton', reason='Triton comes with a CUDA build of torch')

from vla_deploy.backends import triton_kept  # noqa: E402
from vla_deploy.backends.kept_kernels import TABLE  # noqa: E402
from vla_deploy.backends.triton_kept import TESTED, open_kept  # noqa: E402
from vla_deploy.pipeline import PolicyError  # noqa: E402

POLICY = 'some_bf16_1_unrolled'


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Return the cache's folder, with a card of Hopper's."""
    monkeypatch.setattr(torch.cuda, 'set_device', lambda _: None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: (9, 0))
    monkeypatch.setenv('VLA_DEPLOY_CACHE', str(tmp_path))
    return tmp_path


def folder():
    """Return the folder's name that a start would look into."""
    return triton_kept._depends_on((9, 0))


@pytest.mark.parametrize('name', [
    'TRITON_PTXAS_PATH', 'TRITON_DEBUG', 'PTXAS_OPTIONS', 'DISABLE_PTXAS_OPT',
])  # fmt: skip
def test_when_triton_is_told_to_compile_otherwise_expect_another_folder(name, monkeypatch):
    before = folder()
    monkeypatch.setenv(name, '1')
    assert folder() != before


def test_when_a_program_that_triton_is_told_of_changes_expect_another_folder(monkeypatch, tmp_path):
    path = tmp_path / 'ptxas'
    path.write_bytes(b'one')
    monkeypatch.setenv('TRITON_PTXAS_PATH', str(path))
    before = folder()
    path.write_bytes(b'another')
    assert folder() != before


def test_when_triton_keeps_its_own_elsewhere_expect_the_same_folder(monkeypatch, tmp_path):
    before = folder()
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    assert folder() == before


@pytest.mark.parametrize('what', ['triton_rows.py', 'quantised.py', 'triton', 'card'])
def test_when_what_kernels_depend_on_changes_expect_another_folder(what, monkeypatch, tmp_path):
    before = folder()
    if what.endswith('.py'):
        for path in triton_kept.HERE.glob('*.py'):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        monkeypatch.setattr(triton_kept, 'HERE', tmp_path)
        assert folder() == before
        (tmp_path / what).write_text('LARGEST = 240.0')
    elif what == 'triton':
        monkeypatch.setattr(triton_kept, 'identity', lambda *_: 'another')
    after = triton_kept._depends_on((8, 9)) if what == 'card' else folder()
    assert after != before


@pytest.mark.parametrize('tested', [True, False])
def test_when_triton_is_of_another_version_than_tested_expect_nothing_kept_looked_at(
    tested, cache, monkeypatch
):
    monkeypatch.setattr(triton_kept.triton, '__version__', TESTED[0] if tested else '9.9.9')
    table = cache / 'kernels' / folder() / POLICY / TABLE
    table.parent.mkdir(parents=True)
    table.write_text('no table')
    if tested:
        with pytest.raises(PolicyError, match='is not a table'):
            open_kept(POLICY, 0)
    else:
        open_kept(POLICY, 0)
