# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A GitHub Actions workflow that holds a repository's bundle to its parity."""

from __future__ import annotations

import json
from pathlib import Path

from vla_deploy import __version__
from vla_deploy.files import write_bytes

WORKFLOW = Path('.github/workflows/vla_parity.yml')

# @…@ are filled in; ${{ … }} are GitHub's own.
_TEMPLATE = """\
# Runs the parity ladder on the bundle in this repository. Made by
# `ros2 run vla_deploy validate export BUNDLE --init-ci`; it is yours to change.
name: VLA parity

on:
  push:
  pull_request:
  workflow_dispatch:

permissions:
  contents: read

env:
  # What pip installs: a release, a wheel, or git+https://… of a fork.
  VLA_DEPLOY: @package@
  BUNDLE: @bundle@
  # The checkpoint that the bundle was made from; empty: rung 1 is not run.
  CHECKPOINT: @checkpoint@
  THRESHOLD: @threshold@

jobs:
  parity:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    steps:
      - uses: actions/checkout@v4
        with:
          lfs: true
      - uses: actions/setup-python@v5
        with:
          python-version: '3.12'
      - name: Install vla_deploy with torch for CPUs
        run: pip install --extra-index-url https://download.pytorch.org/whl/cpu "$VLA_DEPLOY"
      - name: Run the parity ladder
        run: >-
          python -m vla_deploy.cli.validate export "$BUNDLE"
          ${CHECKPOINT:+--model "$CHECKPOINT"}
          --threshold "$THRESHOLD" --output-json parity.json
      - name: Keep the figures
        if: always()
        uses: actions/upload-artifact@v4
        with:
          name: vla-parity
          path: parity.json
          if-no-files-found: ignore
"""


class WorkflowError(ValueError):
    """The workflow cannot be written; the one-line message says why."""


def workflow(bundle: Path, checkpoint: Path | None, threshold: float) -> str:
    """Return the workflow's text for paths relative to the root of the user's repository.

    Raises WorkflowError for a path that would not be there on GitHub's machine.
    """
    for path in (bundle, checkpoint):
        if path is not None and (path.is_absolute() or '..' in path.parts):
            raise WorkflowError(f'{path}: give it relative to the root of the repository')
    values = {
        'package': f'vla_deploy[export]=={__version__}',
        'bundle': bundle.as_posix(),
        'checkpoint': checkpoint.as_posix() if checkpoint else '',
        'threshold': repr(threshold),
    }
    text = _TEMPLATE
    for name, value in values.items():
        text = text.replace(f'@{name}@', json.dumps(value))  # a JSON string is a YAML one
    return text


def write_workflow(path: Path, text: str) -> None:
    """Write the workflow where none is yet; raises FileExistsError and OSError."""
    if path.exists() or path.is_symlink():
        raise FileExistsError(f'{path} exists already; remove it or give another --ci-file')
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode('utf-8'))
