# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""States for which Ruckig itself fails."""

import numpy as np
import pytest
from guard_world import fr3_limits

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.jerk import JerkMotion

pytest.importorskip('ruckig')


def test_when_ruckig_fails_for_a_state_expect_no_way_and_no_error() -> None:
    """Found by the fuzz: joint 3 accelerates as much as it may, but for rounding."""
    limits = fr3_limits(acceleration=1.0, jerk=5000.0)
    motion = JerkMotion.of(limits, Bounds.of(limits, 0.005))
    assert motion is not None
    position = np.array([
        0.2243662954749618, -0.9112658748085599, 0.0562236495015082, -2.504524246476231,
        -0.1313855101921329, 1.321624116529367, 0.6792815379258265,
    ])  # fmt: skip
    velocity = np.array([
        0.01367638245280898, -0.1519208295649907, 0.3561769211078487, -0.3561804376359094,
        0.1267234820293811, -0.1881013546993396, 0.00712178298960146,
    ])  # fmt: skip
    acceleration = np.array([
        2.683900582850909e-16, -2.147120466280727e-15, -0.5999934756768606, 0.5999994000000075,
        3.578534110467878e-16, 5.533574468681969e-15, 3.818555827185463e-15,
    ])  # fmt: skip
    target = np.array([
        0.2323292003858997, -0.982218042981747, 0.1619431320498216, -2.610244772685512,
        -0.06954044028181999, 1.239445762656255, 0.683467008587145,
    ])  # fmt: skip
    rest = np.zeros(7)
    assert motion.reach(0, position, velocity, acceleration, 0.08, (target, rest, rest)) is None
    assert motion.reach(0, position, velocity, rest, 0.08, (target, rest, rest)) is not None
