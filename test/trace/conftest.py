# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of traces import the bags that they write."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
