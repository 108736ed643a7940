# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts of tools/setup where they decide something."""

import importlib.util
import os
import subprocess
import sys

import pytest
from package_files import ROOT, locked, set_names

SETUP = ROOT / 'tools' / 'setup'


def script(name):
    """Load one script of tools/setup as a module."""
    spec = importlib.util.spec_from_file_location(f'setup_{name}', SETUP / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def libraries():
    return script('system_libraries')


@pytest.fixture
def environment(tmp_path, monkeypatch):
    module = script('environment')
    monkeypatch.setattr(module, 'VENV', tmp_path)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    (tmp_path / 'requirements').mkdir()
    (tmp_path / 'stamps').mkdir()
    return module


def test_when_nothing_is_missing_expect_no_word(libraries, monkeypatch, capsys):
    monkeypatch.setattr(libraries, 'missing_packages', list)
    assert libraries.main() == 0
    assert capsys.readouterr() == ('', '')


def test_when_a_library_is_missing_and_not_root_expect_the_line_to_run(
    libraries, monkeypatch, capsys
):
    monkeypatch.setattr(libraries, 'loads', lambda library: library != 'libEGL.so.1')
    monkeypatch.setattr(libraries.os, 'geteuid', lambda: 1000)
    assert libraries.main() == 1
    line = 'sudo apt-get install -y --no-install-recommends libegl1 libgl1-mesa-dri'
    assert line in capsys.readouterr().err


def test_when_a_library_is_missing_and_root_expect_it_installed(libraries, monkeypatch):
    calls = []
    present = set()

    def run(command, **_):
        calls.append(command[:2])
        present.add('libGL.so.1')
        return subprocess.CompletedProcess(command, 0, '')

    monkeypatch.setattr(libraries, 'loads', lambda name: name != 'libGL.so.1' or name in present)
    monkeypatch.setattr(libraries.os, 'geteuid', lambda: 0)
    monkeypatch.setattr(libraries.shutil, 'which', lambda name: name)
    monkeypatch.setattr(libraries.subprocess, 'run', run)
    assert libraries.main() == 0
    assert calls == [['apt-get', 'update'], ['apt-get', 'install']]


def test_when_apt_fails_expect_exit_1_and_the_command(libraries, monkeypatch, capsys):
    monkeypatch.setattr(libraries, 'loads', lambda library: False)
    monkeypatch.setattr(libraries.os, 'geteuid', lambda: 0)
    monkeypatch.setattr(libraries.shutil, 'which', lambda name: name)
    monkeypatch.setattr(
        libraries.subprocess, 'run',
        lambda command, **_: subprocess.CompletedProcess(command, 100, 'E: no network'),
    )  # fmt: skip
    assert libraries.main() == 1
    error = capsys.readouterr().err
    assert 'E: no network' in error
    assert 'failed: apt-get update' in error


def test_when_a_lock_changes_expect_its_set_no_longer_in_place(environment, tmp_path):
    lock = tmp_path / 'requirements' / 'serve.txt'
    serve = environment.RequirementSet('serve', 'what serves', 1)
    lock.write_text('numpy==1.26.0\n')
    path, text = environment.stamp_of(serve)
    assert not environment.is_in_place(serve)
    path.write_text(text)
    assert environment.is_in_place(serve)
    lock.write_text('numpy==1.26.1\n')
    assert not environment.is_in_place(serve)


def test_when_the_origin_changes_expect_another_environment(environment):
    assert environment.identity('wheels') != environment.identity('jazzy')


@pytest.mark.parametrize('set_name', set_names())
def test_when_a_lock_is_split_expect_every_package_with_all_its_lines(environment, set_name):
    text = (ROOT / 'requirements' / f'{set_name}.txt').read_text()
    entries = environment.locked_entries(text)
    expected = locked(set_name)
    assert {name: entry.split('\n') for name, entry in entries.items()} == expected


def test_when_a_ros_install_brings_a_package_expect_only_the_others_installed(
    environment, tmp_path, monkeypatch
):
    monkeypatch.setattr(environment, 'PYTHON', sys.executable)
    absent = f'no-such==2 \\\n    --hash=sha256:{"0" * 64}\n'
    present = absent.replace('no-such', 'numpy')
    (tmp_path / 'requirements' / 'serve.txt').write_text(f'# head\n{present}{absent}')
    missing = environment.only_missing(environment.RequirementSet('serve', 'what serves', 1))
    assert missing.read_text() == absent


def test_when_a_lock_is_not_for_this_python_expect_an_error_naming_it(environment, tmp_path):
    (tmp_path / 'requirements' / 'ros.txt').write_text('# for Python 2.7 on Linux\n')
    with pytest.raises(environment.SetupError, match=r'ros\.txt has no hashes for Python 3'):
        environment.check_locked_for_this_python(environment.ROS)


def test_when_a_command_fails_expect_its_output_and_the_log(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, 'LOG', tmp_path / 'setup.log')
    with pytest.raises(environment.SetupError, match='no such wheel') as caught:
        environment.call([sys.executable, '-c', 'import sys; print("no such wheel"); sys.exit(1)'])
    assert str(tmp_path / 'setup.log') in str(caught.value)


def test_when_the_log_holds_bars_of_progress_expect_the_end_of_the_last_command_alone(
    environment, tmp_path, monkeypatch
):
    monkeypatch.setattr(environment, 'LOG', tmp_path / 'setup.log')
    environment.call([sys.executable, '-c', 'print("━" * 1000)'])
    with pytest.raises(environment.SetupError) as caught:
        environment.call([sys.executable, '-c', 'import sys; print("no such wheel"); sys.exit(1)'])
    assert str(caught.value).startswith('no such wheel\nfailed: ')


@pytest.mark.parametrize(('name', 'indices'), [('torch', 1), ('serve', 0)])
def test_when_pip_does_not_find_torch_expect_pytorch_s_own_index_asked_and_for_no_other(
    environment, tmp_path, monkeypatch, name, indices
):
    pip = tmp_path / 'pip'
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit 1\n')
    pip.chmod(0o755)
    monkeypatch.setattr(environment, 'PYTHON', pip)
    monkeypatch.setattr(environment, 'LOG', tmp_path / 'setup.log')
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    (tmp_path / 'requirements' / f'{name}.txt').write_text(f'# for Python {version} on Linux\n')
    (wanted,) = [s for s in environment.ALL_SETS if s.name == name]
    with pytest.raises(environment.SetupError):
        environment.install(wanted, environment.WHEELS)
    asked = (tmp_path / 'asked').read_text().splitlines()
    assert len(asked) == 1 + indices
    assert [environment.TORCH_INDEX in line for line in asked] == [False] + [True] * indices


def test_when_ros_is_named_but_not_importable_expect_setup_to_say_so(tmp_path):
    python = tmp_path / 'python3'
    python.write_text('#!/bin/sh\nexit 1\n')
    python.chmod(0o755)
    environment = {**os.environ, 'ROS_DISTRO': 'jazzy', 'VLA_DEPLOY_PREFIX': '',
                   'PATH': f'{tmp_path}:{os.environ["PATH"]}'}  # fmt: skip
    result = subprocess.run(
        ['bash', str(SETUP / 'setup.sh'), 'run'], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "ROS_DISTRO is 'jazzy', but python3 cannot import rclpy" in result.stderr


def test_when_cmake_is_missing_expect_the_line_that_installs_it(tmp_path):
    for name in ('python3', 'cc', 'c++', 'dirname', 'tr', 'grep', 'paste', 'bash'):
        found = subprocess.run(['bash', '-c', f'type -P {name}'], capture_output=True, text=True)
        target = sys.executable if name == 'python3' else found.stdout.strip()
        (tmp_path / name).symlink_to(target)
    environment = {'PATH': str(tmp_path), '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1'}
    result = subprocess.run(
        [tmp_path / 'bash', SETUP / 'setup.sh', 'run'],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        assert result.stderr.rstrip().endswith('Run: apt-get install -y cmake')
    else:
        assert 'Python 3.11 or 3.12 is needed' in result.stderr
    assert result.returncode == 1


def test_when_the_renderer_is_asked_to_draw_expect_it_to_work():
    result = subprocess.run(
        [sys.executable, SETUP / 'check_renderer.py'], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


def test_when_the_renderer_cannot_draw_expect_exit_1_and_what_to_install():
    environment = {**os.environ, 'MUJOCO_GL': 'egl', 'MUJOCO_EGL_DEVICE_ID': '999'}
    result = subprocess.run(
        [sys.executable, SETUP / 'check_renderer.py'],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1
    assert 'apt-get install -y libegl1 libgl1 libgl1-mesa-dri' in result.stdout
