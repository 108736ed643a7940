# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The inference node gives its policy back: at cleanup, and when configuring fails behind it."""

import pytest
import rclpy
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from vla_deploy.nodes.inference import InferenceNode
from vla_deploy.pipeline import Policy


@pytest.fixture
def closed(monkeypatch):
    """Return the policies that were closed."""
    found, close = [], Policy.close
    monkeypatch.setattr(Policy, 'close', lambda own: found.append(own) or close(own))
    return found


@pytest.fixture
def node(plain_bundle, plain_contract):
    """Return parameters -> an inference node on a stub."""
    context = Context()
    rclpy.init(context=context)
    made = []

    def make(**parameters):
        given = {
            'bundle': str(plain_bundle(plain_contract)), 'backend': 'stub', 'execute_steps': 3,
            **parameters,
        }
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        made.append(InferenceNode(context=context, parameter_overrides=overrides))
        return made[-1]

    yield make
    for own in made:
        own.destroy_node()
    rclpy.shutdown(context=context)


def test_when_the_node_is_cleaned_up_expect_its_policy_closed(node, closed):
    served = node()
    assert served.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert closed == []
    assert served.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert len(closed) == 1


@pytest.mark.parametrize('wrong', [
    {'strategy': 'real_time_chunking', 'execute_steps': 6}, {'urdf_path': '/no/such.urdf'},
])
def test_when_configuring_fails_behind_the_policy_expect_it_closed(wrong, node, closed):
    assert node(**wrong).trigger_configure() == TransitionCallbackReturn.FAILURE
    assert len(closed) == 1
