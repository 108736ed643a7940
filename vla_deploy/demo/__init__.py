# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration: episodes through the whole graph, and a report that can be checked."""
