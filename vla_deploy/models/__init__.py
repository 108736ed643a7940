# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Policy families as plain torch modules with static shapes and explicit key/value tensors.

Parameter names equal the checkpoint's, so that loading is strict. Nothing here imports
transformers or lerobot; each family has one file on shared parts.
"""
