# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Imports go one way: core, pipeline, backends and models, export and trace, ros, nodes and cli."""

import sys

import pytest
from package_files import ROOT, imported_modules

PACKAGE = ROOT / 'vla_deploy'
# What each part may import beside itself. A part that is not listed fails the test below.
MAY_IMPORT = {
    'core': set(),
    'files': set(),
    'share': set(),
    'sim': {'core'},
    'pipeline': {'core', 'files', 'share'},
    'backends': {'core', 'files', 'share', 'pipeline', 'models'},
    'models': {'core', 'files', 'pipeline'},
    'bringup': {'core', 'files', 'share'},
    'shared_memory': set(),
    'supervisor': {'bringup', 'shared_memory'},
    'export': {'core', 'files', 'share', 'pipeline', 'backends', 'models', 'bringup'},
    'trace': {'core', 'files', 'share', 'pipeline', 'backends', 'models'},
}
MAY_IMPORT['ros'] = set(MAY_IMPORT)
MAY_IMPORT['demo'] = {*MAY_IMPORT}
MAY_IMPORT['nodes'] = {*MAY_IMPORT} - {'demo'}
MAY_IMPORT['cli'] = {*MAY_IMPORT} - {'nodes'}
# top-level modules from outside that a part may not import
FORBIDDEN = {
    'core': {'rclpy', 'torch', 'onnxruntime', 'yaml', 'mujoco'},
    'files': {'rclpy', 'torch', 'numpy'},
    'pipeline': {'rclpy', 'torch', 'mujoco'},
    'sim': {'rclpy', 'torch', 'onnxruntime'},
    'backends': {'rclpy', 'mujoco'},
    'models': {'rclpy', 'onnxruntime', 'mujoco'},
    'bringup': {'rclpy', 'torch', 'onnxruntime', 'mujoco'},
    'ros': {'torch', 'onnxruntime', 'mujoco'},
    'nodes': {'torch', 'onnxruntime', 'mujoco'},
}
PYTHON_FILES = sorted(PACKAGE.rglob('*.py'))


def part_of(path):
    """Return the first name below vla_deploy that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix('').parts[0]


def own_parts(path):
    """Return the parts of vla_deploy that a file imports."""
    names = (name.split('.') for name in imported_modules(path))
    return {name[1] for name in names if name[0] == 'vla_deploy' and len(name) > 1}


def ids(path):
    return str(path.relative_to(ROOT))


def test_when_a_part_exists_expect_a_place_among_the_layers():
    parts = {part_of(path) for path in PYTHON_FILES} - {'__init__'}
    assert parts <= set(MAY_IMPORT), 'give the new part a line in MAY_IMPORT'


@pytest.mark.parametrize('path', PYTHON_FILES, ids=ids)
def test_when_a_file_imports_another_part_expect_a_lower_layer(path):
    part = part_of(path)
    if part == '__init__':
        assert own_parts(path) == set()
        return
    known = own_parts(path) & set(MAY_IMPORT)
    assert known - {part} <= MAY_IMPORT[part]


@pytest.mark.parametrize('path', PYTHON_FILES, ids=ids)
def test_when_a_file_imports_from_outside_expect_nothing_its_layer_forbids(path):
    outside = {name.split('.')[0] for name in imported_modules(path)}
    assert not outside & FORBIDDEN.get(part_of(path), set())


@pytest.mark.parametrize('path', sorted((PACKAGE / 'core').rglob('*.py')), ids=ids)
def test_when_core_imports_expect_the_standard_library_numpy_and_ruckig_alone(path):
    outside = {name.split('.')[0] for name in imported_modules(path)} - {'vla_deploy'}
    assert outside <= {*sys.stdlib_module_names, 'numpy', 'ruckig'}
