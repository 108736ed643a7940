# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A broken rule as data: which rule, joint and sample, the value, the limit and a sentence."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Action(enum.IntEnum):
    """What the guard did about it; the same numbers as in Violation.msg."""

    REFUSED = 1
    CLAMPED = 2
    HOLD = 3
    FAULT = 4
    NOTED = 5


@dataclass(frozen=True)
class Violation:
    """One rule broken by a chunk, a command or an input; `unit` belongs to value and limit."""

    rule: str
    action: Action
    message: str
    joint: str = ''
    sample: int = -1
    value: float = 0.0
    limit: float = 0.0
    unit: str = '1'
    session_id: str = ''
    seq: int = 0
