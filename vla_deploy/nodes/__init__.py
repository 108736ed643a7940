# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""ROS nodes: each decodes a message, calls its core with the time, and publishes."""
