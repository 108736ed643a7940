# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The bundle of the policy that comes with a robot: exported once, then kept in a cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vla_deploy import __version__
from vla_deploy.bringup import own_policy
from vla_deploy.share import cache_folder

# What a robot's own policy is served with (`threads` in its inference.yaml): a bundle is proven as
# it runs, and the last bits depend on it.
SERVING_THREADS = 1
_END_S = 2.0  # for an export to end on the Ctrl-C that reached it, too


class BundleUnavailable(Exception):
    """The bundle that was asked for does not exist or could not be exported; says why."""


def bundle_for(robot: str, given: str) -> Path:
    """Return the folder of the bundle to serve: the given one, or the robot's own.

    The robot's own policy is exported at first use, by a process of its own so that the caller
    never imports torch. Raises BundleUnavailable, and OSError where the policy cannot be read.
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
        _make_cache(bundle.parent)
        print(f'exporting {checkpoint.name} to {bundle} (once)', file=sys.stderr, flush=True)
        command = [sys.executable, '-m', 'vla_deploy.cli.export']
        command += ['--model', str(checkpoint), '--output', str(bundle)]
        command += ['--threads', str(SERVING_THREADS)]
        code = _run(command)
        if code != 0 and not _is_whole(bundle):
            raise BundleUnavailable(f'export of {checkpoint} failed with exit code {code}')
        if code != 0:
            print(f'{bundle} was made by another run meanwhile', file=sys.stderr, flush=True)
    return bundle


def _make_cache(folder: Path) -> None:
    reason = 'is not a folder that can be written'
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f'cannot be made: {error.strerror}'
    else:
        if os.access(folder, os.W_OK | os.X_OK):
            return
    raise BundleUnavailable(
        f'cache {folder} {reason}; set VLA_DEPLOY_CACHE to a folder that can be written'
    )


def _run(command: Sequence[str]) -> int:
    """Return the command's exit code; where that is not waited for, it is ended first.

    It is not killed: it would leave the folder that it works in behind.
    """
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException:
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        raise


def _is_whole(bundle: Path) -> bool:
    """Say whether there is a bundle as its receipt says, whoever made it."""
    from vla_deploy.pipeline.bundle import BundleError, open_bundle  # takes a while to import

    try:
        open_bundle(bundle)
    except (BundleError, OSError):
        return False
    return True


def _digest(checkpoint: Path) -> str:
    """Return a digest of the checkpoint's files and of the exporter's version."""
    digest = hashlib.sha256(__version__.encode())
    for file in sorted(p for p in checkpoint.rglob('*') if p.is_file()):
        digest.update(str(file.relative_to(checkpoint)).encode() + b'\0')
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
