# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Times, durations and joint states to numbers and back. Joints go by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

NS_PER_S = 1_000_000_000


class ConversionError(ValueError):
    """A message is malformed; the text names the field and what was expected."""


def time_ns(stamp: Time) -> int:
    """Return a stamp as nanoseconds."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def time_msg(stamp_ns: int) -> Time:
    """Return nanoseconds as a stamp."""
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    return Time(sec=sec, nanosec=nanosec)


def duration_s(duration: Duration) -> float:
    """Return a duration in seconds."""
    return (int(duration.sec) * NS_PER_S + int(duration.nanosec)) / NS_PER_S


def duration_msg(duration_s: float) -> Duration:
    """Return seconds as a duration, rounded to the nanosecond."""
    sec, nanosec = divmod(round(duration_s * NS_PER_S), NS_PER_S)
    return Duration(sec=sec, nanosec=nanosec)


class JointMap:
    """Picks declared joints out of messages by name; remembers the order of the last message."""

    def __init__(self, joint_names: Sequence[str]) -> None:
        self._wanted = tuple(joint_names)
        self._names: list[str] = []
        self._index: NDArray[np.intp] | None = None

    def positions(self, msg: JointState) -> NDArray[np.float64]:
        """Return float64 [joints] in the declared order; raise ConversionError naming a joint."""
        return self._pick(msg.name, msg.position, 'position')

    def velocities(self, msg: JointState) -> NDArray[np.float64] | None:
        """Return float64 [joints], or None where the message carries no velocities."""
        if len(msg.velocity) == 0:
            return None
        return self._pick(msg.name, msg.velocity, 'velocity')

    def _pick(
        self, names: Sequence[str], values: Sequence[float], field: str
    ) -> NDArray[np.float64]:
        if self._index is None or names != self._names:
            self._index = self._resolve(names)
            self._names = list(names)
        if len(values) != len(names):
            raise ConversionError(f'{len(names)} names, but {len(values)} values of {field}')
        return np.asarray(values, dtype=np.float64)[self._index]

    def _resolve(self, names: Sequence[str]) -> NDArray[np.intp]:
        if len(set(names)) != len(names):
            twice = sorted({n for n in names if list(names).count(n) > 1})
            raise ConversionError(f'joint named twice: {", ".join(twice)}')
        missing = [n for n in self._wanted if n not in names]
        if missing:
            raise ConversionError(f'missing joint: {", ".join(missing)}')
        return np.array([list(names).index(n) for n in self._wanted], dtype=np.intp)
