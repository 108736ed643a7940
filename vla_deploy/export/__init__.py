# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a verified bundle; submodules import torch only where they need it."""
