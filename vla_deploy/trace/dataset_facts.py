# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the checks of a data set look at, and what each of them says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vla_deploy.core.limits import JointLimits
from vla_deploy.trace.dataset import Info, Metadata
from vla_deploy.trace.dataset_scan import Scan

PASS, WARN, FAIL, NOT_RUN = 'pass', 'warn', 'fail', 'not run'
# LeRobot refuses to load a data set whose frames are farther from the grid than this, and to read
# a video that has no frame so near to the moment that it looks for.
FPS_TOLERANCE_S = 1e-4
Verdict = tuple[str, str, str]  # status, found, mend


@dataclass(frozen=True, eq=False)
class Facts:
    """All that the checks look at."""

    root: Path
    info: Info
    metadata: Metadata
    scan: Scan
    limits: JointLimits


def knows(facts: Facts, *columns: str) -> bool:
    """Return whether every file that was read has these columns, as they are declared."""
    lacking = {column for names in facts.scan.missing_columns.values() for column in names}
    return bool(facts.scan.read) and not lacking & set(columns) and not (
        set(columns) & facts.scan.unmeasured
    )
