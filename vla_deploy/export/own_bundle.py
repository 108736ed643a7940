# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The bundle of the policy that comes with a robot: exported once, then kept in a cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from vla_deploy import __version__
from vla_deploy.bringup import own_policy
from vla_deploy.share import cache_folder

# What a robot's own policy is served with (`threads` in its inference.yaml): a bundle is proven as
# it runs, and the last bits depend on it.
SERVING_THREADS = 1


class BundleUnavailable(Exception):
    """The bundle that was asked for does not exist or could not be exported; says why."""


def bundle_for(robot: str, given: str) -> Path:
    """Return the folder of the bundle to serve: the given one, or the robot's own.

    The robot's own policy is exported at first use, by a process of its own so that the caller
    never imports torch. Raises BundleUnavailable.
    """
    if given:
        bundle = Path(given).expanduser().resolve()
        if not bundle.is_dir():
            raise BundleUnavailable(f'bundle {bundle} is not a folder')
        return bundle
    checkpoint = own_policy(robot)
    if not checkpoint.is_dir():
        raise BundleUnavailable(f'policy {checkpoint} of {robot} is missing: give bundle:=FOLDER')
    bundle = cache_folder() / f'{checkpoint.name}-{_digest(checkpoint)[:16]}'
    if not bundle.is_dir():
        bundle.parent.mkdir(parents=True, exist_ok=True)
        print(f'exporting {checkpoint.name} to {bundle} (once)', file=sys.stderr, flush=True)
        command = [sys.executable, '-m', 'vla_deploy.cli.export']
        command += ['--model', str(checkpoint), '--output', str(bundle)]
        command += ['--threads', str(SERVING_THREADS)]
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            raise BundleUnavailable(f'export of {checkpoint} failed with exit code {code}')
    return bundle


def _digest(checkpoint: Path) -> str:
    """Return a digest of the checkpoint's files and of the exporter's version."""
    digest = hashlib.sha256(__version__.encode())
    for file in sorted(p for p in checkpoint.rglob('*') if p.is_file()):
        digest.update(str(file.relative_to(checkpoint)).encode() + b'\0')
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
