# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the launch tests of this folder, those that ROS 2's `launch_test` can run by itself."""

import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH_TESTS = sorted(Path(__file__).parent.glob('*.launch.py'))


@pytest.mark.parametrize('path', LAUNCH_TESTS, ids=lambda path: path.name)
def test_when_run_by_launch_test_expect_success(path):
    pytest.importorskip(
        'launch_testing.launch_test', reason='the launch stack of ROS 2 is not installed'
    )
    command = [sys.executable, '-m', 'launch_testing.launch_test', str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
