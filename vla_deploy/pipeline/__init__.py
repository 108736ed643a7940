# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The one pipeline: decoded images, joint state and instruction in, a chunk of actions out."""

from vla_deploy.pipeline.backend import PolicyError
from vla_deploy.pipeline.bundle import BundleError
from vla_deploy.pipeline.fixtures import SelfTest
from vla_deploy.pipeline.guidance import Guidance
from vla_deploy.pipeline.observation import Observation, ObservationError
from vla_deploy.pipeline.policy import Policy
from vla_deploy.pipeline.policy_chunk import PolicyChunk, Timings

__all__ = [
    'BundleError',
    'Guidance',
    'Observation',
    'ObservationError',
    'Policy',
    'PolicyChunk',
    'PolicyError',
    'SelfTest',
    'Timings',
]
