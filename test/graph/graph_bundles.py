# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles for tests of the graph, exported once for each state of the sources that make them.

Kept under build/test/bundles: an export takes 15 s, and launch tests cannot use pytest's fixtures.
"""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

from vla_deploy.bringup import own_policy

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / 'test' / 'goldens'
_EXPORTED_BY = ('core', 'export', 'models', 'pipeline', 'backends')


def reach_bundle() -> Path:
    """Folder of the bundle of the FR3's own policy: one camera, `front`, seven joints."""
    return _exported('reach', own_policy('franka'))


def golden_bundle(name: str) -> Path:
    """Folder of the bundle of a golden checkpoint, which names neither joints nor a period."""
    return _exported(name, GOLDENS / name / 'checkpoint')


def _exported(name: str, checkpoint: Path) -> Path:
    target = ROOT / 'build' / 'test' / 'bundles' / f'{name}-{_digest(checkpoint)}'
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f'{name}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be making it
        if not target.is_dir():
            from vla_deploy.export.build import ExportOptions, export_bundle

            export_bundle(ExportOptions(checkpoint, target), 1, lambda line: None)
    return target


def _digest(checkpoint: Path) -> str:
    digest = hashlib.sha256()
    sources = [p for name in _EXPORTED_BY for p in (ROOT / 'vla_deploy' / name).rglob('*.py')]
    weights = [p for p in checkpoint.rglob('*') if p.is_file()]
    for path in sorted(sources) + sorted(weights):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
