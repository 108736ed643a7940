# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The policy that comes with a robot: proven as it is served."""

from __future__ import annotations

import json

import pytest
import yaml

from test.graph.graph_bundles import reach_bundle
from vla_deploy.bringup import own_policy, robots, share_directory
from vla_deploy.core.parameter import ParameterError
from vla_deploy.export.own_bundle import SERVING_THREADS


def robots_with_a_policy() -> list[str]:
    found = []
    for robot in robots():
        try:
            own_policy(robot)
        except ParameterError:
            continue
        found.append(robot)
    return found


@pytest.mark.parametrize('robot', robots_with_a_policy())
def test_when_a_robot_comes_with_a_policy_expect_it_proven_on_the_threads_that_serve(
    robot: str,
) -> None:
    path = share_directory() / 'config' / robot / 'inference.yaml'
    served = yaml.safe_load(path.read_text())['/**']['ros__parameters']['threads']
    assert served == SERVING_THREADS


def test_when_the_own_policy_is_exported_expect_rung_1_within_2e_6() -> None:
    receipt = json.loads((reach_bundle() / 'receipt.json').read_text())
    figure = receipt['parity']['worst']['graph_chunk']
    assert figure['max_abs'] <= 2e-6
    assert figure['cosine'] >= 0.9999999
