# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The one pipeline: decoded images, joint state and instruction in, a chunk of actions out."""
