# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the profiles in config/fastdds/ a process uses. Other middlewares read none of them."""

from __future__ import annotations

import os
from pathlib import Path

from vla_deploy.share import share_directory

IMAGES = 'images'
"""For processes that send or hear images: shared memory, and UDP."""
CONTROL = 'control'
"""For those that nobody may hold up, guard and robot: UDP alone."""

PROFILES_FILE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
RANGE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'
_LOCALHOST = '_localhost'
_OTHER_CHOICES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTDDS_BUILTIN_TRANSPORTS')


def use_profile(name: str) -> None:
    """Choose IMAGES or CONTROL for this process, before it joins the graph."""
    os.environ.update(environment_with(name))


def environment_with(name: str) -> dict[str, str]:
    """Return this process's environment with IMAGES or CONTROL as its profile.

    A file or transports that the user chose stay, and so does LOCALHOST beside ROS_STATIC_PEERS,
    which no profile can say.
    """
    environment = dict(os.environ)
    given = Path(environment.get(PROFILES_FILE, ''))
    own = given.parent.parts[-2:] == ('config', 'fastdds')
    if environment.get(PROFILES_FILE) and not own:
        return environment
    if not own and any(environment.get(variable) for variable in _OTHER_CHOICES):
        return environment
    local = environment.get(RANGE) == 'LOCALHOST' and not environment.get('ROS_STATIC_PEERS')
    if local:
        environment[RANGE] = 'SYSTEM_DEFAULT'  # else rmw_fastrtps adds transports of its own
    suffix = _LOCALHOST if local or (own and given.stem.endswith(_LOCALHOST)) else ''
    folder = share_directory() / 'config' / 'fastdds'
    environment[PROFILES_FILE] = str(folder / f'{name}{suffix}.xml')
    return environment
