# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Command-line verbs, one file each."""
