# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Where the package's own files lie: in an installed share folder, or in the source tree; and where
it keeps what it makes for itself."""

from __future__ import annotations

import os
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


def cache_folder() -> Path:
    """Return where what is made once is kept: `$VLA_DEPLOY_CACHE`, else
    `$XDG_CACHE_HOME/vla_deploy`, else `~/.cache/vla_deploy`."""
    if os.environ.get('VLA_DEPLOY_CACHE'):
        return Path(os.environ['VLA_DEPLOY_CACHE'])
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'vla_deploy'
