# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated robot: scene, cameras, trajectory controller. MuJoCo is imported when first used."""
