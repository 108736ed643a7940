# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The policy of an inference node, as its parameters describe it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vla_deploy.core.contract import Contract, ContractError
from vla_deploy.core.kinematics import KinematicsError
from vla_deploy.core.urdf import MAX_BYTES, UrdfError, parse_urdf
from vla_deploy.files import read_text
from vla_deploy.pipeline import Policy, PolicyError
from vla_deploy.pipeline.end_effector import EndEffector, EndEffectorRules
from vla_deploy.pipeline.inference_config import InferenceConfig
from vla_deploy.pipeline.strategy import (
    ENSEMBLING,
    REAL_TIME_CHUNKING,
    SYNCHRONOUS,
    StrategyOptions,
)


@dataclass(frozen=True)
class ServedPolicy:
    """A policy, and its contract with what the parameters add where the bundle is silent.

    `effector`: what makes joint positions of the policy's actions, whose names and number the
    contract then gives; None where they are joint positions. `adaptive_error`: the largest action
    error of `adaptive_steps` on the bundle's fixtures.
    """

    policy: Policy
    contract: Contract
    effector: EndEffector | None = None
    adaptive_error: float = 0.0

    def measured(self, adaptive_steps: float) -> ServedPolicy:
        """Return this with the error that `adaptive_steps` causes."""
        return replace(self, adaptive_error=self.policy.adaptive_error(adaptive_steps))


def load_policy(config: InferenceConfig) -> ServedPolicy:
    """Verify and load the bundle; raises BundleError, PolicyError and ContractError.

    PolicyError also for parameters that the policy cannot fulfil.
    """
    policy = Policy.load(
        config.bundle,
        backend=config.backend,
        provider=config.provider,
        precision=config.precision,
        variant=config.variant,
        threads=config.threads or None,
        stub_value=config.stub_value,
    )
    try:
        return _served(policy, config)
    except Exception:
        policy.close()  # the next one must find the room that it took
        raise


def _served(policy: Policy, config: InferenceConfig) -> ServedPolicy:
    effector = None
    contract = completed_contract(policy.contract, config)
    if config.end_effector_link:
        effector = load_effector(contract, config)
        contract = contract.commanding(effector.joint_names)
    _check_steps(policy, config)
    _check_strategy(contract, config)
    return ServedPolicy(policy, contract, effector)


def load_effector(contract: Contract, config: InferenceConfig) -> EndEffector:
    """Return what makes joint positions of a policy's actions.

    Raises PolicyError where link, joints and contract do not go together, and FileError.
    """
    if not config.urdf_path:
        raise PolicyError("parameter 'end_effector_link' needs 'urdf_path', to find the link in")
    rules = EndEffectorRules(
        config.end_effector_semantics, config.end_effector_rotation,
        config.end_effector_max_residual_m, config.end_effector_max_residual_rad,
    )  # fmt: skip
    try:
        urdf = parse_urdf(read_text(Path(config.urdf_path), MAX_BYTES))
        effector = EndEffector(urdf, config.end_effector_link, config.end_effector_others,
                               contract.state.joints or (), rules)
    except UrdfError as error:
        raise PolicyError(f'{config.urdf_path}: {error}') from error
    except (KinematicsError, ValueError) as error:
        raise PolicyError(f"parameter 'end_effector_link': {error}") from error
    if contract.action.control_mode != 'position' or contract.action.dim != effector.action_dim:
        raise PolicyError(
            f'an action with a pose of {config.end_effector_link!r} has {effector.action_dim} '
            f"elements and control mode 'position'; the bundle's has {contract.action.dim} and "
            f'{contract.action.control_mode!r}'
        )
    return effector


def strategy_options(
    contract: Contract, config: InferenceConfig, policy_dim: int
) -> StrategyOptions:
    """Return how chunks of a policy follow one another; its own actions have `policy_dim`
    elements, whatever is made of them."""
    assert contract.period_s is not None
    return StrategyOptions(
        name=config.strategy,
        execute_steps=config.execute_steps or contract.chunk_steps,
        anchor=config.anchor,
        chunk_steps=contract.chunk_steps,
        period_s=contract.period_s,
        first_sample_offset_steps=contract.action.first_sample_offset_steps,
        action_dim=policy_dim,
        ensemble_decay=config.ensemble_decay,
        guidance_schedule=config.guidance_schedule,
        guidance_max_weight=config.guidance_max_weight,
        action_similarity=config.action_similarity,
        max_skips=config.max_skips,
    )


def _check_steps(policy: Policy, config: InferenceConfig) -> None:
    """Raise PolicyError for what needs the denoising steps one by one, where they are not."""
    if policy.takes_steps_apart:
        return
    for name, wanted in (
        ('strategy', config.strategy == REAL_TIME_CHUNKING),
        ('deadline_ms', config.deadline_ms > 0.0),
        ('adaptive_steps', config.adaptive_steps > 0.0),
    ):
        if wanted:
            raise PolicyError(
                f'parameter {name!r} is {getattr(config, name)!r}, which needs the denoising steps '
                f"one by one: variant 'split', not {config.variant!r}"
            )


def _check_strategy(contract: Contract, config: InferenceConfig) -> None:
    steps = contract.chunk_steps
    if steps < 2:
        raise PolicyError(
            f'{config.bundle}/contract.yaml: chunk_steps is {steps}, but the guard executes the '
            'motion from one sample to the next: export a policy whose chunks have 2 or more'
        )
    executed = config.execute_steps or steps
    least = 2 if config.strategy == SYNCHRONOUS else 1
    most = steps - 1 if config.strategy in (ENSEMBLING, REAL_TIME_CHUNKING) else steps
    if not least <= executed <= most:
        raise PolicyError(
            f"parameter 'execute_steps' is {executed}, but strategy {config.strategy!r} with "
            f'chunks of {steps} samples needs {least} to {most}'
        )
    poses = config.end_effector_link and config.end_effector_semantics == 'from_observation'
    if config.strategy == REAL_TIME_CHUNKING and (poses or contract.action.semantics == 'delta'):
        what = "end_effector_semantics 'from_observation'" if poses else 'actions of differences'
        raise PolicyError(
            f"parameter 'strategy' is 'real_time_chunking', but with {what} what is left of a "
            'chunk is relative to another observation than the next one'
        )
    if config.action_similarity > 0.0 and config.strategy == SYNCHRONOUS:
        raise PolicyError(
            "parameter 'action_similarity' is of no use with strategy 'synchronous': nothing goes "
            'on while a chunk is left out'
        )


def completed_contract(contract: Contract, config: InferenceConfig) -> Contract:
    """Return the contract with what the configuration adds where the bundle is silent."""
    names = config.joint_names or None
    contract = contract.with_robot(
        state_joints=names,
        action_joints=None if config.end_effector_link else names,
        period_s=config.period_s or None,
    )
    where = f'{config.bundle}/contract.yaml'
    unnamed = contract.action.joints is None and not config.end_effector_link
    if contract.state.joints is None or unnamed:
        raise ContractError(f"{where} names no joints: give parameter 'joint_names'")
    if contract.period_s is None:
        raise ContractError(f"{where} gives no period_s: give parameter 'period_s'")
    return contract
