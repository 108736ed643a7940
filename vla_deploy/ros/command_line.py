# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Says what is wrong with the words that a node is started with, before ROS reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rclpy.utilities import remove_ros_args

_PARAMETER = 'write -p name:=value'
_HINTS = {
    '--params-file': "give a file that reads '/**: {ros__parameters: {name: value}}'",
    '-p': _PARAMETER,
    '--param': _PARAMETER,
}
_PLACES = re.compile(r'( ?, at \S+:\d+)+$')  # where in the sources of ROS it was noticed
_RULE = re.compile(r"Couldn't parse .*?: '(.*)'\. Error: (.*)")


def wrong_words(words: Sequence[str]) -> str:
    """Return one line about what no node takes; empty where nothing is wrong."""
    for_ros = False
    for word in words:
        # Not left to ROS: it takes name:=value for a remapping wherever it stands.
        if not for_ros and word != '--ros-args':
            return (f'{word!r} is nothing that a node takes: what is for it goes behind '
                    '--ros-args, as --ros-args -p name:=value')
        for_ros = word != '--'
    files = [Path(path) for word, path in pairwise(words) if word == '--params-file']
    if any(path.is_fifo() or path.is_char_device() for path in files):
        return ''  # it can be read once, and that is for ROS
    try:
        remove_ros_args(list(words))
    except RuntimeError as error:  # rclpy's own classes of errors are not in its public API
        return _reason(' '.join(str(error).split()))
    return ''


def _reason(text: str) -> str:
    if text.startswith('['):  # all that rclpy says of words behind --ros-args that it does not know
        return f'{text.strip("[]")} behind --ros-args is nothing that ROS takes there; {_PARAMETER}'
    text = _PLACES.sub('', text).removeprefix('Failed to parse ROS arguments: ')
    found = _RULE.fullmatch(text)
    if found is None:
        return text
    rule, why = found.groups()
    hint = _HINTS.get(rule.partition(' ')[0])
    return f'{rule}: {why}{f"; {hint}" if hint else ""}'
