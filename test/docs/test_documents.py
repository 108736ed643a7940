# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The generated documents are what the code says."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('tool', sorted(p.name for p in (ROOT / 'tools' / 'docs').glob('*.py')))
def test_when_code_changes_expect_its_document_to_follow(tool):
    command = [sys.executable, str(ROOT / 'tools' / 'docs' / tool), '--check']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
