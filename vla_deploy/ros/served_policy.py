# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The policy of an inference node, as its parameters describe it."""

from __future__ import annotations

from dataclasses import dataclass

from vla_deploy.core.contract import Contract, ContractError
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.inference_config import InferenceConfig


@dataclass(frozen=True)
class ServedPolicy:
    """A policy, and its contract with what the parameters add where the bundle is silent."""

    policy: Policy
    contract: Contract


def load_policy(config: InferenceConfig) -> ServedPolicy:
    """Verify and load the bundle; raises BundleError, PolicyError and ContractError."""
    policy = Policy.load(
        config.bundle,
        backend=config.backend,
        provider=config.provider,
        precision=config.precision,
        variant=config.variant,
        threads=config.threads or None,
        stub_value=config.stub_value,
    )
    return ServedPolicy(policy, completed_contract(policy.contract, config))


def completed_contract(contract: Contract, config: InferenceConfig) -> Contract:
    """Return the contract with what the configuration adds where the bundle is silent."""
    names = config.joint_names or None
    contract = contract.with_robot(
        state_joints=names, action_joints=names, period_s=config.period_s or None
    )
    where = f'{config.bundle}/contract.yaml'
    if contract.state.joints is None or contract.action.joints is None:
        raise ContractError(f"{where} names no joints: give parameter 'joint_names'")
    if contract.period_s is None:
        raise ContractError(f"{where} gives no period_s: give parameter 'period_s'")
    return contract
