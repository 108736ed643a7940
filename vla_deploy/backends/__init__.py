# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
