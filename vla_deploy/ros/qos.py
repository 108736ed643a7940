# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Every QoS profile in use, by name."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(depth: int, reliable: bool, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


SENSOR = _profile(5, reliable=False)  # images and joint states: a late sample is worthless
CHUNK = _profile(1, reliable=True)
COMMAND = _profile(1, reliable=True)
EXECUTION_STATE = _profile(1, reliable=False)
STATUS = _profile(1, reliable=True, latched=True)
VIOLATIONS = _profile(100, reliable=True)
DIAGNOSTICS = _profile(10, reliable=True)
DESCRIPTION = _profile(1, reliable=True, latched=True)
CLOCK = _profile(1, reliable=False)
# Subscribed twice, so that neither a volatile nor a latched publisher goes unheard.
INSTRUCTION_VOLATILE = _profile(10, reliable=False)
INSTRUCTION_LATCHED = _profile(1, reliable=True, latched=True)
ESTOP_VOLATILE = _profile(10, reliable=False)
ESTOP_LATCHED = _profile(10, reliable=True, latched=True)
