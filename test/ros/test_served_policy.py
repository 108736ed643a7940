# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the parameters say of how chunks follow one another reaches the strategy."""

import dataclasses

import pytest

from vla_deploy.pipeline import PolicyError
from vla_deploy.pipeline.inference_config import InferenceConfig
from vla_deploy.ros.served_policy import load_policy, strategy_options

CHANGES = {
    'strategy': 'ensembling',
    'execute_steps': 3,
    'anchor': 'arrival',
    'ensemble_decay': 0.5,
    'guidance_schedule': 'ones',
    'guidance_max_weight': 1.0,
    'action_similarity': 0.1,
    'max_skips': 7,
}


@pytest.mark.parametrize('name', CHANGES)
def test_when_a_parameter_changes_expect_it_in_the_options(plain_contract, name):
    before = strategy_options(plain_contract, InferenceConfig(), 7)
    config = dataclasses.replace(InferenceConfig(), **{name: CHANGES[name]})
    option = 'name' if name == 'strategy' else name
    after = strategy_options(plain_contract, config, 7)
    assert after == dataclasses.replace(before, **{option: CHANGES[name]})


def test_when_the_contract_says_it_expect_it_in_the_options(plain_contract):
    options = strategy_options(plain_contract, InferenceConfig(), 7)
    assert (options.chunk_steps, options.execute_steps, options.action_dim) == (6, 6, 7)
    assert (options.period_s, options.first_sample_offset_steps) == (0.1, 0)


def test_when_actions_are_differences_expect_real_time_chunking_refused_at_once(
    plain_bundle, plain_contract
):
    action = dataclasses.replace(plain_contract.action, semantics='delta', delta_dims=(0,))
    bundle = plain_bundle(dataclasses.replace(plain_contract, action=action))
    given = InferenceConfig(bundle=str(bundle), backend='stub', execute_steps=3)
    assert load_policy(given).contract.action.semantics == 'delta'
    guided = dataclasses.replace(given, strategy='real_time_chunking')
    with pytest.raises(PolicyError, match="'strategy' is 'real_time_chunking'.*differences"):
        load_policy(guided)


def test_when_a_policy_makes_chunks_of_one_sample_expect_it_refused_at_once(
    plain_bundle, plain_contract
):
    bundle = plain_bundle(dataclasses.replace(plain_contract, chunk_steps=1))
    with pytest.raises(PolicyError, match=r'contract\.yaml: chunk_steps is 1, but the guard'):
        load_policy(InferenceConfig(bundle=str(bundle), backend='stub'))
