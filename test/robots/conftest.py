# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Helpers of these tests, and the harness of the running graph."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / 'graph'))


@pytest.fixture
def graph(tmp_path):
    """An empty graph for one test, in a ROS domain of its own."""
    from graph_harness import Graph

    made = Graph(tmp_path)
    yield made
    made.close()
