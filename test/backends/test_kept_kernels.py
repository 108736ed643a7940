# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled kernels that are kept for the next start, on a stand-in for Triton: no card."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends import kept_kernels  # noqa: E402
from vla_deploy.backends.kept_kernels import TABLE, KeptKernels  # noqa: E402
from vla_deploy.pipeline import PolicyError  # noqa: E402

GRID, STREAM, DEVICE, FUNCTION = (3, 2, 1), 77, 0, 500
ARGUMENTS = ('x', 'y')
CONSTANTS = {'WIDTH': 8, 'PDL': True, 'num_warps': 4}


class Triton:
    """Compiles, loads and launches, and says so."""

    arg_names, __name__ = ('x', 'y', 'WIDTH', 'PDL'), 'some_kernel'

    def __init__(self, folder):
        self.compiled, self.loaded, self.launched, self.scratch = [], [], [], 0
        self._launcher = folder / 'launcher.so'
        self._launcher.write_bytes(b'launcher')

    def warmup(self, *arguments, grid, **constants):
        """Compile a kernel."""
        self.compiled.append((arguments, constants))
        metadata = SimpleNamespace(
            name=f'kernel_{constants["WIDTH"]}', shared=1024, launch_cooperative_grid=False,
            launch_pdl=constants['PDL'], global_scratch_size=self.scratch, profile_scratch_size=0,
        )

        class Compiled(SimpleNamespace):
            def __getitem__(_, grid):
                return lambda *values: self.launched.append((grid, values))

        return Compiled(
            metadata=metadata, run=SimpleNamespace(launch=self._launch), packed_metadata=(4, 1, 9),
            function=FUNCTION + constants['WIDTH'], asm={'ptx': 'text'},
            kernel=f'code {constants["WIDTH"]}'.encode(),
        )

    def load(self, name, code, shared, device):
        """Load a kernel."""
        self.loaded.append((name, code, shared, device))
        return FUNCTION + int(name.partition('_')[2])

    def launcher_of(self, _compiled):
        """Return a file."""
        return self._launcher

    def launch_in(self, path):
        """Return what launches."""
        assert path.read_bytes() == b'launcher'
        return self._launch

    def _launch(self, *values):
        self.launched.append(values)


@pytest.fixture(autouse=True)
def stream(monkeypatch):
    monkeypatch.setattr(
        kept_kernels.torch._C, '_cuda_getCurrentRawStream', lambda _: STREAM, raising=False
    )


@pytest.fixture
def triton(tmp_path):
    return Triton(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'kernels'


def opened(folder, triton):
    """Return what a start finds."""
    kept = KeptKernels(folder, DEVICE, triton)
    kept.load()
    return kept


def call(kept, triton, **constants):
    """Launch the kernel."""
    launch = kept.launch_of(triton, ARGUMENTS, CONSTANTS | constants, ('float', 'int'))
    launch(GRID, ARGUMENTS)


def test_when_a_kernel_was_compiled_expect_the_next_start_to_launch_it_the_same_way(folder, triton):
    first = opened(folder, triton)
    call(first, triton)
    first.save()
    call(opened(folder, triton), triton)
    assert len(triton.compiled) == 1
    assert triton.loaded == [('kernel_8', b'code 8', 1024, DEVICE)]
    before, after = triton.launched
    assert before == after
    function, cooperative, overlaps, packed = FUNCTION + 8, False, True, (4, 1, 9)
    how = (cooperative, overlaps, None, None, packed, None, None, None)
    assert after == (*GRID, STREAM, function, *how, *ARGUMENTS, 8, True)


@pytest.mark.parametrize('other', [{'WIDTH': 16}, {'PDL': False}, {'num_warps': 8}])
def test_when_a_constant_differs_expect_another_kernel(other, folder, triton):
    first = opened(folder, triton)
    call(first, triton)
    first.save()
    call(opened(folder, triton), triton, **other)
    assert len(triton.compiled) == 2


def test_when_arguments_are_of_other_kinds_expect_another_kernel(folder, triton):
    kept = opened(folder, triton)
    for kinds in (('float', 'int'), ('float', 'float')):
        kept.launch_of(triton, ARGUMENTS, CONSTANTS, kinds)
    assert len(triton.compiled) == 2


def test_when_a_kernel_is_not_used_any_more_expect_it_not_loaded_again(folder, triton):
    first = opened(folder, triton)
    for width in (8, 16):
        call(first, triton, WIDTH=width)
    first.save()
    second = opened(folder, triton)
    call(second, triton, WIDTH=16)
    second.save()
    triton.loaded.clear()
    opened(folder, triton)
    assert [name for name, *_ in triton.loaded] == ['kernel_16']


def test_when_what_was_tried_is_forgotten_expect_only_what_is_used_afterwards_kept(folder, triton):
    first = opened(folder, triton)
    for width in (8, 16):
        call(first, triton, WIDTH=width)
    first.used.clear()
    call(first, triton, WIDTH=8)
    first.save()
    assert len(triton.compiled) == 2
    assert len(json.loads((folder / TABLE).read_text())) == 1
    assert len(list(folder.glob('*.cubin'))) == 1


def test_when_nothing_changed_expect_no_file_written(folder, triton):
    first = opened(folder, triton)
    call(first, triton)
    first.save()
    table = (folder / TABLE).stat().st_mtime_ns
    second = opened(folder, triton)
    call(second, triton)
    second.save()
    assert (folder / TABLE).stat().st_mtime_ns == table


@pytest.mark.parametrize('harm', ['damaged', 'missing'])
@pytest.mark.parametrize('kind', ['cubin', 'so'])
def test_when_a_file_is_not_what_was_kept_expect_its_name_and_what_to_remove(
    harm, kind, folder, triton
):
    first = opened(folder, triton)
    call(first, triton)
    first.save()
    path = next(folder.glob(f'*.{kind}'))
    if harm == 'damaged':
        path.write_bytes(b'else')
    else:
        path.unlink()
    words = 'is damaged' if harm == 'damaged' else 'No such file'
    with pytest.raises(PolicyError, match=f'{path.name}: {words}.*; remove {folder}'):
        opened(folder, triton)


def test_when_what_launches_cannot_be_loaded_expect_a_warning_and_kernels_compiled(folder, triton):
    first = opened(folder, triton)
    call(first, triton)
    first.save()

    def fail(path):
        raise ImportError(f'{path}: failed to map segment from shared object')

    triton.launch_in = fail
    with pytest.warns(UserWarning, match=f'{folder}.*failed to map.*VLA_DEPLOY_CACHE'):
        second = opened(folder, triton)
    call(second, triton)
    assert len(triton.compiled) == 2


@pytest.mark.parametrize('content', ['', '[1]', '{"key": {"name": "kernel"}}', '{"key": 1}'])
def test_when_the_table_is_none_expect_its_name_and_to_remove_it(content, folder, triton):
    folder.mkdir()
    (folder / TABLE).write_text(content)
    with pytest.raises(PolicyError, match=f'{TABLE}: is not a table.*remove it'):
        opened(folder, triton)


def test_when_kernels_cannot_be_written_expect_a_warning_that_names_the_file(folder, triton):
    folder.write_text('in the way')
    kept = opened(folder, triton)
    call(kept, triton)
    with pytest.warns(UserWarning, match=f'{TABLE}: cannot be written.*VLA_DEPLOY_CACHE'):
        kept.save()


def test_when_a_kernel_takes_memory_of_tritons_expect_it_left_to_triton(folder, triton):
    triton.scratch = 64
    kept = opened(folder, triton)
    call(kept, triton)
    kept.save()
    assert not folder.exists() or json.loads((folder / TABLE).read_text()) == {}
    assert triton.launched == [(GRID, (*ARGUMENTS, 8, True))]


def test_when_there_is_no_driver_expect_nothing_kept_and_kernels_left_to_triton(folder, triton):
    kept = opened(folder, None)
    call(kept, triton)
    kept.save()
    assert not folder.exists()
    assert triton.launched == [(GRID, (*ARGUMENTS, 8, True))]


def test_when_a_kernel_is_compiled_expect_the_texts_it_was_made_from_let_go_of(folder, triton):
    kept, made = opened(folder, triton), []
    right = triton.warmup
    triton.warmup = lambda *a, **k: made.append(right(*a, **k)) or made[-1]
    call(kept, triton)
    assert made[0].asm == {}
