# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What tests of nodes in this process share."""

import pytest
import rclpy
from rclpy.context import Context


@pytest.fixture
def context():
    """A ROS context of the test's own."""
    made = Context()
    rclpy.init(context=made)
    yield made
    rclpy.shutdown(context=made)
