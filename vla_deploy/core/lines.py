# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which line of motion a robot needs: by its control mode and its limits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.command import CommandLine
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.jerk import JerkMotion
from vla_deploy.core.jerk_line import JerkLine
from vla_deploy.core.limits import JointLimits, LimitsError
from vla_deploy.core.velocity_line import VelocityLine
from vla_deploy.core.workspace import Workspace


class Lines:
    """Begins lines of motion for one robot."""

    def __init__(self, limits: JointLimits, config: GuardConfig) -> None:
        """Raises LimitsError for limits that cannot be kept."""
        self._config = config
        self._bounds = Bounds.of(limits, config.soft_margin)
        self._workspace = Workspace.of(limits)
        self._smooth = JerkMotion.of(limits, self._bounds)
        if self._smooth is not None and config.control_mode == 'velocity':
            raise LimitsError('jerk limits do not go with control_mode velocity: leave jerk out')

    def begin(self, now_ns: int, position: NDArray[np.float64]) -> CommandLine:
        """A line that begins at rest at a position [joints]."""
        given = (now_ns, position, self._bounds, self._config, self._workspace)
        if self._smooth is not None:
            return JerkLine(*given, self._smooth)
        return (VelocityLine if self._config.control_mode == 'velocity' else CommandLine)(*given)
