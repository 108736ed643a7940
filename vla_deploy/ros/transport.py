# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the Fast DDS profiles in config/fastdds/ a process uses. With another middleware: none,
and nothing of its environment is changed."""

from __future__ import annotations

import os
from pathlib import Path

from rclpy.utilities import get_rmw_implementation_identifier

from vla_deploy.share import share_directory

IMAGES = 'images'
"""For processes that send or hear images: shared memory, and UDP."""
CONTROL = 'control'
"""For those that nobody may hold up, guard and robot: UDP alone."""

PROFILES_FILE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
RANGE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'
LOCALHOST_ONLY = 'ROS_LOCALHOST_ONLY'  # deprecated; goes before RANGE where it is 1
_LOCALHOST = '_localhost'


def use_profile(name: str) -> str:
    """Choose IMAGES or CONTROL for this process, before it joins the graph.

    Returns a sentence where the choice cannot be kept to, else an empty text.
    """
    environment = environment_with(name)
    os.environ.update(environment)
    if name == CONTROL and _is_ours(environment) and _range(environment) == 'LOCALHOST':
        return (
            f'{RANGE}=LOCALHOST beside ROS_STATIC_PEERS makes rmw_fastrtps add shared memory, by '
            'which a process that is stopped can hold this one up: use SUBNET'
        )
    return ''


def environment_with(name: str) -> dict[str, str]:
    """Return this process's environment with IMAGES or CONTROL as its profile.

    A file or transports that the user chose stay, and so does LOCALHOST beside ROS_STATIC_PEERS,
    which no profile can say.
    """
    environment = dict(os.environ)
    if not get_rmw_implementation_identifier().startswith('rmw_fastrtps'):
        return environment
    given = environment.get(PROFILES_FILE, '')
    chosen = given or environment.get('FASTDDS_BUILTIN_TRANSPORTS')
    if chosen and not _is_ours(environment):
        return environment
    reach = _range(environment)
    inherited = Path(given).stem.endswith(_LOCALHOST) and reach in ('', 'SYSTEM_DEFAULT')
    local = inherited or (reach == 'LOCALHOST' and not environment.get('ROS_STATIC_PEERS'))
    if local:  # rmw_fastrtps adds transports of its own to LOCALHOST, and multicast to no range
        environment[RANGE] = 'SYSTEM_DEFAULT'
        if environment.get(LOCALHOST_ONLY) == '1':  # else unset: rcl warns where it is not
            environment[LOCALHOST_ONLY] = '0'
    environment[PROFILES_FILE] = str(_folder() / f'{name}{_LOCALHOST if local else ""}.xml')
    return environment


def _range(environment: dict[str, str]) -> str:
    """Return the range as rcl understands it; empty: not given, which is SUBNET."""
    given = environment.get(RANGE, '')
    known = ('', 'OFF', 'LOCALHOST', 'SUBNET', 'SYSTEM_DEFAULT')
    only_here = environment.get(LOCALHOST_ONLY) == '1' or given not in known
    return 'LOCALHOST' if only_here else given


def _is_ours(environment: dict[str, str]) -> bool:
    return Path(environment.get(PROFILES_FILE, '')).parent == _folder()


def _folder() -> Path:
    return share_directory() / 'config' / 'fastdds'
