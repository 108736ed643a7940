# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What each process of the graph loads, and that every entry point can be started."""

import importlib
import subprocess
import sys

import pytest
from package_files import ROOT, setup_data

SCRIPTS = dict(
    (part.strip() for part in script.split('=')) for script in setup_data()['scripts']
)


def modules_after_import(module):
    """Import one module in a process of its own; return the names of all that were loaded."""
    code = f'import sys, {module}\nprint(*sorted(name.split(".")[0] for name in sys.modules))'
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_when_the_guard_process_starts_expect_neither_torch_nor_onnxruntime():
    loaded = modules_after_import('vla_deploy.nodes.guard')
    assert 'rclpy' in loaded
    assert not loaded & {'torch', 'onnxruntime', 'onnx', 'mujoco', 'tokenizers'}


@pytest.mark.parametrize(
    'module',
    ['vla_deploy.nodes.inference', 'vla_deploy.pipeline', 'vla_deploy.backends.onnx_runtime'],
)
def test_when_a_bundle_is_served_expect_no_torch(module):
    loaded = modules_after_import(module)
    assert 'numpy' in loaded
    assert not loaded & {'torch', 'onnx', 'transformers', 'lerobot', 'mujoco'}


@pytest.mark.parametrize('target', sorted(SCRIPTS.values()))
def test_when_an_entry_point_is_loaded_expect_a_function(target):
    module, function = target.split(':')
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize('target', sorted(SCRIPTS.values()))
def test_when_an_entry_point_is_asked_for_help_expect_its_usage_and_exit_0(target):
    module = target.split(':')[0]
    result = subprocess.run(
        [sys.executable, '-m', module, '--help'], cwd=ROOT, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert 'usage' in result.stdout or 'parameters' in result.stdout
