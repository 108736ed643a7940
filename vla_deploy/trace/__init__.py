# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Recording runs as bags, finding them again, replaying them, and checking data sets."""
