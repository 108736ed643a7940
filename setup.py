# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The ament_python package vla_deploy, at the root of the repository."""

import pathlib
import runpy
from collections import defaultdict

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

PACKAGE = 'vla_deploy'
SHARED_FOLDERS = ('launch', 'config', 'urdf', 'policies')
VERBS = ('up', 'export', 'validate', 'demo', 'guard', 'verify_log', 'traces', 'replay', 'bench')
NODES = ('inference', 'recorder', 'sim_robot')
COMPILED = runpy.run_path(f'{PACKAGE}/pipeline/compiled.py')


class BuildLibrary(build_ext):
    """Compiles the image code as the package itself does, for any Python: no extension module."""

    def get_ext_filename(self, name):
        """Return the file of a dotted or bare name, by its digest instead of a Python's tag."""
        return '/'.join([*name.split('.')[:-1], COMPILED['library_name']()])

    def build_extension(self, extension):
        """Compile the one library that there is."""
        COMPILED['compile_library'](pathlib.Path(self.get_ext_fullpath(extension.name)))


def share_files():
    """List (destination, files) of everything that goes to share/vla_deploy, folders kept."""
    files_of = defaultdict(list)
    for folder in SHARED_FOLDERS:
        for path in sorted(pathlib.Path(folder).rglob('*')):
            if path.is_file() and '__pycache__' not in path.parts:
                files_of[f'share/{PACKAGE}/{path.parent}'].append(str(path))
    return sorted(files_of.items())


setup(
    name=PACKAGE,
    version='0.1.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={
        f'{PACKAGE}.export.evidence': ['*.json'],
        f'{PACKAGE}.backends': ['tuned/*.json'],
        f'{PACKAGE}.pipeline': ['resize.c'],
    },
    ext_modules=[Extension(f'{PACKAGE}.pipeline.resize', [f'{PACKAGE}/pipeline/resize.c'])],
    cmdclass={'build_ext': BuildLibrary},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        *share_files(),
    ],
    # requirements/serve.in, without pins: a distribution brings its own versions
    install_requires=[
        'numpy', 'onnxruntime', 'tokenizers', 'safetensors', 'PyYAML', 'ruckig', 'Pillow', 'mcap',
        'zstandard',
    ],
    extras_require={
        'sim': ['mujoco', 'matplotlib'],
        'data': ['pyarrow', 'av'],
        'export': ['torch', 'onnx', 'onnx-ir', 'onnxscript', 'safetensors'],
        # colcon runs no test at all unless pytest is declared
        'test': ['pytest', 'hypothesis', 'psutil'],
        # chosen by hand on a machine with an NVIDIA GPU: requirements/not_on_a_bare_machine.yaml
        'gpu': ['onnxruntime-gpu', 'tensorrt', 'triton'],
    },
    python_requires='>=3.10',
    zip_safe=False,
    author='vla_deploy authors',
    maintainer='vla_deploy maintainers',
    maintainer_email='maintainers@vla-deploy.org',
    description='From a trained vision-language-action policy to a guarded robot on ROS 2.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            *(f'{verb} = {PACKAGE}.cli.{verb}:main' for verb in VERBS),
            *(f'{node} = {PACKAGE}.nodes.{node}:main' for node in NODES),
        ],
    },
)
