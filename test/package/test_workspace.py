# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The workspace as colcon, make and Docker see it."""

import os
import re
import subprocess
import sys

import pytest
from package_files import ROOT

DOCKERFILE = ROOT / 'docker' / 'Dockerfile'
COLCON = [
    sys.executable, '-c', 'import sys; from colcon_core.command import main; sys.exit(main())',
]  # fmt: skip


def colcon_list(cwd, *arguments):
    """Return {package: type} as `colcon list` shows it."""
    environment = {k: v for k, v in os.environ.items() if k != 'COLCON_DEFAULTS_FILE'}
    result = subprocess.run(
        [*COLCON, '--log-base', os.devnull, 'list', *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return {line.split('\t')[0]: line.split('\t')[2] for line in result.stdout.splitlines()}


def instructions():
    """Return the Dockerfile's instructions, continued lines joined, comments left out."""
    text = re.sub(r'^\s*#.*\n', '', DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r'\\\n', ' ', text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


TYPES = {'vla_deploy': '(ros.ament_python)', 'vla_deploy_msgs': '(ros.ament_cmake)'}


def test_when_colcon_lists_the_root_expect_both_ros_types():
    assert colcon_list(ROOT) == TYPES


def test_when_colcon_lists_from_a_workspace_above_expect_both_ros_types(tmp_path):
    (tmp_path / 'src').mkdir()
    (tmp_path / 'src' / 'vla_deploy').symlink_to(ROOT)
    paths = ('src', 'src/vla_deploy/vla_deploy_msgs')
    assert colcon_list(tmp_path, '--base-paths', *paths) == TYPES


@pytest.mark.parametrize(
    'target', ['help', 'setup', 'build', 'demo', 'test', 'bench', 'fuzz', 'lint', 'clean']
)
def test_when_make_is_called_alone_expect_the_target_listed(target):
    result = subprocess.run(['make', '-s'], cwd=ROOT, check=True, capture_output=True, text=True)
    assert re.search(rf'^  make {target} +\w', result.stdout, re.MULTILINE)


def test_when_episodes_and_seed_are_given_expect_them_passed_to_the_demo():
    result = subprocess.run(
        ['make', '-n', 'demo', 'EPISODES=100', 'SEED=7'],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert re.search(r'cli\.demo .*--episodes 100.*--seed 7', result.stdout, re.DOTALL)


def test_when_continuous_integration_runs_expect_make_test_and_nothing_else():
    script = ROOT / '.ci' / 'run'
    assert os.access(script, os.X_OK)
    commands = [
        line for line in script.read_text().splitlines()
        if line and not line.startswith(('#', 'set ', 'cd '))
    ]  # fmt: skip
    assert commands == ['exec make test < /dev/null']


def test_when_the_image_is_built_expect_a_pinned_base():
    bases = [value for word, value in instructions() if word == 'FROM']
    assert len(bases) == 1
    assert re.fullmatch(r'debian:12\.\d+-slim(@sha256:[0-9a-f]{64})?', bases[0])


def test_when_the_image_is_built_expect_only_known_instructions():
    allowed = {'FROM', 'SHELL', 'RUN', 'WORKDIR', 'COPY', 'CMD'}
    assert {word for word, _ in instructions()} <= allowed
    assert [word for word, _ in instructions()].count('CMD') == 1


def test_when_the_image_installs_packages_expect_no_recommends_and_cleaned_lists():
    runs = [value for word, value in instructions() if word == 'RUN' and 'apt-get' in value]
    assert runs
    for run in runs:
        assert run.startswith('apt-get update ')
        assert 'install -y --no-install-recommends' in run
        assert run.rstrip().endswith('rm -rf /var/lib/apt/lists/*')
        assert 'sudo' not in run


def test_when_the_image_copies_expect_existing_sources_and_absolute_folders():
    for word, value in instructions():
        if word == 'COPY':
            *sources, _ = value.split()
            assert all((ROOT / source).exists() for source in sources)
        if word == 'WORKDIR':
            assert value.startswith('/')


def test_when_the_image_runs_expect_the_readme_commands_and_enough_shared_memory():
    text = DOCKERFILE.read_text()
    assert instructions()[-1] == ('CMD', '["make", "demo"]')
    assert '--shm-size=' in text
    assert 'make test' in text
