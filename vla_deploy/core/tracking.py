# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the robot is where it was commanded to be."""

from __future__ import annotations

from vla_deploy.core.command import CommandLine
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.joint_watch import JointWatch
from vla_deploy.core.limits import JointLimits


class TrackingWatch:
    """Counts measurements in a row that are too far from the command; each is judged once."""

    def __init__(self, limits: JointLimits, config: GuardConfig) -> None:
        self._limits, self._config = limits, config
        grippers = limits.among(config.gripper_joints).tolist()
        self._judged = [j for j, gripper in enumerate(grippers) if not gripper]
        self.forget()

    def forget(self, judged_ns: int = -1) -> None:
        """Begin to count anew, with measurements after judged_ns."""
        self._in_a_row, self._judged_ns = 0, judged_ns

    def fault(self, line: CommandLine, joints: JointWatch) -> tuple[str, str, str] | None:
        """(rule, joint, sentence) if the newest measurement is one too many, else None."""
        if joints.position is None or joints.stamp_ns == self._judged_ns or not line.covers(
            joints.stamp_ns
        ):
            return None
        self._judged_ns = joints.stamp_ns
        error = line.tracking_error(joints.position, joints.stamp_ns)
        j = max(self._judged, key=error.__getitem__, default=-1)
        if j < 0 or error[j] <= self._config.tracking_error:
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        if self._in_a_row < self._config.tracking_error_ticks:
            return None
        name, unit = self._limits.names[j], self._limits.units[j]
        return 'tracking_error', name, (f'{name} is {error[j]:.4g} {unit} from its command, limit '
                                        f'{self._config.tracking_error:g}')
