# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What must be right: plain numpy, no ROS, no torch, no clock."""
