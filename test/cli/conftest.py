# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of the verbs use the guard's world and the bags that other tests use."""

import sys
from pathlib import Path

for folder in ('fuzz', 'trace'):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))
