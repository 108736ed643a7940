# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Lets launch tests import the harness of the graph tests."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'graph'))

# pytest cannot import a module with a dot in its name; test_launch_tests.py runs these.
collect_ignore_glob = ['*.launch.py']
