# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The library of the image code: where it comes from, and what is said where it cannot be had."""

import ctypes
import os
import subprocess
import sys

import pytest

from vla_deploy.pipeline import compiled, native

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def no_library(tmp_path, monkeypatch):
    """Sources that were never installed, and an empty cache; returns its folder."""
    monkeypatch.setattr(native, '__file__', str(tmp_path / 'sources' / 'native.py'))
    monkeypatch.setenv('VLA_DEPLOY_CACHE', str(tmp_path / 'cache'))
    native.resize_function.cache_clear()
    yield tmp_path / 'cache' / 'native'
    native.resize_function.cache_clear()


def test_when_sources_run_as_they_are_expect_library_compiled_once(no_library, capfd):
    native.resize_function()
    assert f'compiling the image code to {no_library}' in capfd.readouterr().err
    native.resize_function.cache_clear()
    native.resize_function()
    assert capfd.readouterr().err == ''
    assert [path.name for path in no_library.iterdir()] == [compiled.library_name()]


def test_when_there_is_no_compiler_expect_error_that_says_what_to_install(no_library, monkeypatch):
    monkeypatch.setenv('CC', 'no-such-compiler')
    with pytest.raises(compiled.CompileError, match="'no-such-compiler'.*build-essential"):
        native.resize_function()
    assert list(no_library.iterdir()) == []


def test_when_compiler_fails_expect_its_first_line_and_no_file(tmp_path, monkeypatch):
    source = tmp_path / 'resize.c'
    source.write_text('#error that is not C\n')
    monkeypatch.setattr(compiled, 'SOURCE', source)
    with pytest.raises(compiled.CompileError, match=r'resize.c.*that is not C'):
        compiled.compile_library(tmp_path / 'built' / 'resize.so')
    assert list((tmp_path / 'built').iterdir()) == []


def test_when_folder_cannot_be_made_expect_error_naming_it(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(compiled.CompileError, match=r'file/resize.so: cannot be written'):
        compiled.compile_library(tmp_path / 'file' / 'resize.so')


def test_when_library_is_broken_expect_error_naming_the_file_to_delete(no_library):
    no_library.mkdir(parents=True)
    (no_library / compiled.library_name()).write_bytes(b'no library')
    with pytest.raises(compiled.CompileError, match=r'resize-.*\.so: cannot be loaded, delete it'):
        native.resize_function()


@pytest.mark.parametrize('what', ['source', 'flags', 'processor'])
def test_when_what_a_library_is_made_from_changes_expect_another_name(what, tmp_path, monkeypatch):
    before = compiled.library_name()
    changed = tmp_path / 'resize.c'
    changed.write_bytes(compiled.SOURCE.read_bytes() + b' ')
    if what == 'source':
        monkeypatch.setattr(compiled, 'SOURCE', changed)
    elif what == 'processor':
        monkeypatch.setattr(compiled.platform, 'machine', lambda: 'riscv64')
    else:
        monkeypatch.setattr(compiled, 'FLAGS', (*compiled.FLAGS, '-g'))
    assert compiled.library_name() != before


def test_when_setup_py_builds_expect_the_library_in_the_package(tmp_path):
    command = [sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', str(tmp_path), 'build',
               '--build-base', str(tmp_path)]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (library,) = tmp_path.glob(f'lib*/vla_deploy/pipeline/{compiled.library_name()}')
    assert ctypes.CDLL(str(library)).vla_deploy_resize
    assert (library.parent / 'resize.c').is_file()
