# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""From a trained vision-language-action policy to a guarded robot on ROS 2."""

__version__ = '0.1.0'
