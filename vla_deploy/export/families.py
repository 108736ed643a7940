# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The families by name: each turns a checkpoint into a contract and a torch module."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from vla_deploy.core.contract import Contract
from vla_deploy.export import pi, smolvla
from vla_deploy.export.checkpoint import Checkpoint
from vla_deploy.models.families import FlowPolicy


@dataclass(frozen=True)
class Family:
    """`load` gives the module and the dtypes of its file, `notes` what a user should know about
    sizes that were assumed; `steps_key` is the Euler steps' key in config.json."""

    load: Callable[[Checkpoint], tuple[FlowPolicy, tuple[str, ...]]]
    contract: Callable[[Checkpoint], Contract]
    notes: Callable[[Checkpoint], tuple[str, ...]]
    steps_key: str


_PI = Family(pi.load, pi.contract, pi.notes, 'num_inference_steps')
FAMILIES = {
    'smolvla': Family(smolvla.load, smolvla.contract, lambda checkpoint: (), 'num_steps'),
    'pi0': _PI,
    'pi05': _PI,
}


def family_of(checkpoint: Checkpoint) -> Family:
    """Return the checkpoint's family."""
    return FAMILIES[checkpoint.family]


def with_steps(checkpoint: Checkpoint, steps: int) -> Checkpoint:
    """Return the checkpoint with another number of Euler steps a chunk."""
    config = {**checkpoint.config, family_of(checkpoint).steps_key: steps}
    return dataclasses.replace(checkpoint, config=config)
