# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A node's status as one entry of /diagnostics, for rqt, dashboards and aggregators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

PERIOD_S = 1.0


def diagnostic(
    header: Header, name: str, level: bytes, message: str, values: Mapping[str, Any]
) -> DiagnosticArray:
    """Return one entry. level: one of DiagnosticStatus.OK, WARN, ERROR, STALE."""
    entry = DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=name.split(':')[0],
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    return DiagnosticArray(header=header, status=[entry])
