# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The newest joint state, matched by name, and how old it is on both clocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.angles import nearest_turn
from vla_deploy.core.guard_io import JointState
from vla_deploy.core.trajectory import NS_TO_S

Array = NDArray[np.float64]

SPEED_WINDOW_NS = 100_000_000
"""Time between two positions whose difference says how fast a joint is, where nothing else does."""


class JointWatch:
    """Keeps the newest usable measurement in declared joint order."""

    def __init__(
        self, names: Sequence[str], timeout_s: float, steady_timeout_s: float, tolerance_s: float,
        continuous: NDArray[np.bool_] | None = None,
    ) -> None:
        """continuous: bool [joints], which turn without end; None if no joint does."""
        self._names = tuple(names)
        self._continuous = continuous
        self._timeout_s, self._steady_timeout_s = timeout_s, steady_timeout_s
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._mapped_names: tuple[str, ...] | None = None
        self._columns: NDArray[np.intp] = np.empty(0, np.intp)
        self._steady_ns = 0
        self._reference: Array | None = None
        self.seen = False
        """Whether any usable joint state ever came."""
        self.stamp_ns = 0
        self.position: Array | None = None
        """[joints]; continuous joints are followed over whole turns, whatever their sensor does."""
        self.velocity: Array | None = None
        """[joints], as measured, else from positions SPEED_WINDOW_NS apart; None before these."""
        self._past: tuple[int, Array] | None = None

    def offer(
        self, state: JointState, now_ros_ns: int, now_steady_ns: int
    ) -> tuple[str, str, str]:
        """Take a measurement; return (rule, joint, sentence), empty if it was usable.

        A measurement not newer than the last one is passed over in silence.
        """
        if state.names != self._mapped_names:
            for name in self._names:
                if state.names.count(name) != 1:
                    what = 'lacks' if name not in state.names else 'names twice'
                    return 'joint_state_names', name, f'joint state {what} joint {name!r}'
            self._columns = np.array([state.names.index(n) for n in self._names], np.intp)
            self._mapped_names = state.names
        if len(state.position) != len(state.names):
            return 'joint_state_size', '', (f'joint state has {len(state.names)} names but '
                                            f'{len(state.position)} positions')
        position = np.asarray(state.position, np.float64)[self._columns]
        if 0 in np.isfinite(position).tobytes():
            j = int(np.flatnonzero(~np.isfinite(position))[0])
            return 'joint_state_finite', self._names[j], (f'measured position of '
                                                          f'{self._names[j]} is {position[j]}')
        if state.stamp_ns > now_ros_ns + self._tolerance_ns:
            ahead = (state.stamp_ns - now_ros_ns) * NS_TO_S
            return 'joint_state_stamp', '', f'joint state lies {ahead:.3f} s in the future'
        if self.position is not None and state.stamp_ns <= self.stamp_ns:
            return '', '', ''
        if self._continuous is not None:
            if self._reference is not None:
                position = nearest_turn(position, self._reference, self._continuous)
            self._reference = position
        self.position, self.stamp_ns, self.seen = position, state.stamp_ns, True
        if state.velocity is not None and len(state.velocity) == len(state.names):
            self.velocity = np.asarray(state.velocity, np.float64)[self._columns]
        else:
            self._estimate_velocity(state.stamp_ns, position)
        self._steady_ns = now_steady_ns
        return '', '', ''

    def _estimate_velocity(self, stamp_ns: int, position: Array) -> None:
        if self._past is None:
            self._past, self.velocity = (stamp_ns, position), None
        elif stamp_ns - self._past[0] >= SPEED_WINDOW_NS:
            passed_s = (stamp_ns - self._past[0]) * NS_TO_S
            self.velocity = (position - self._past[1]) / passed_s
            self._past = stamp_ns, position

    def age_s(self, now_ros_ns: int) -> float:
        """Age of the measurement in ROS time; -1 before the first."""
        if self.position is None:
            return -1.0
        return max(0.0, (now_ros_ns - self.stamp_ns) * NS_TO_S)

    def stale(self, now_ros_ns: int, now_steady_ns: int) -> str:
        """Why the measurement is too old, or an empty string (also before the first)."""
        if not self.seen:
            return ''
        age = self.age_s(now_ros_ns)
        if age > self._timeout_s:
            return f'joint state is {age:.3f} s old, limit {self._timeout_s:g} s'
        silent = (now_steady_ns - self._steady_ns) * NS_TO_S
        if silent > self._steady_timeout_s:
            return f'no new joint state for {silent:.3f} s of steady time'
        return ''

    def fresh(self, now_ros_ns: int, now_steady_ns: int) -> bool:
        """Whether there is a measurement that is not stale."""
        return self.position is not None and not self.stale(now_ros_ns, now_steady_ns)

    def forget(self) -> None:
        """Drop the measurement after a clock jump; the steady time goes on counting."""
        self.position = self.velocity = self._past = None
