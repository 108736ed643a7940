# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of the core use their own helpers, and the guard's world and judge of the fuzz."""

import sys
from pathlib import Path

CORE = Path(__file__).resolve().parent
sys.path[:0] = [str(CORE), str(CORE.parent / 'fuzz')]
