# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The modules that export knows, which all have `prefix`, `step`, `sample` and a `time_table`."""

from __future__ import annotations

from typing import TypeAlias

from vla_deploy.models.pi import Pi
from vla_deploy.models.smolvla import SmolVLA

FlowPolicy: TypeAlias = SmolVLA | Pi
