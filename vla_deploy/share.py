# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Where the package's own files lie: in an installed share folder, or in the source tree."""

from __future__ import annotations

from pathlib import Path


def share_directory() -> Path:
    """Return the folder that holds config/, urdf/, launch/ and policies/.

    Raises FileNotFoundError, naming what was tried, if the package is neither installed by colcon
    nor run from its source tree.
    """
    package = Path(__file__).resolve().parent
    candidates = [package.parent]
    # colcon installs to <prefix>/lib/pythonX.Y/site-packages and <prefix>/share.
    candidates += [parent / 'share' / 'vla_deploy' for parent in package.parents[2:5]]
    for candidate in candidates:
        if (candidate / 'config' / 'franka').is_dir():
            return candidate
    tried = ', '.join(str(c) for c in candidates)
    raise FileNotFoundError(f'config/ of vla_deploy not found in {tried}; run colcon build')
