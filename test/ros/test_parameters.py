# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters come from their declaration, and a wrong one is named."""

import dataclasses

import pytest
from rclpy.node import Node

from vla_deploy.core.parameter import ParameterError, parameter
from vla_deploy.ros.parameters import declare_parameters, read_config


@dataclasses.dataclass(frozen=True)
class Config:
    """One parameter of each type."""

    rate_hz: float = parameter(10.0, 'How often.', 'Hz', minimum=1.0, maximum=100.0)
    steps: int = parameter(3, 'How many.', minimum=1, maximum=5)
    mode: str = parameter('clamp', 'Which.', choices=('clamp', 'reject'))
    joints: list[str] = parameter([], 'Names.')
    gains: list[float] = parameter([1.0], 'Gains.')
    loud: bool = parameter(False, 'Whether.', read_only=False)


@pytest.fixture
def make_node(context):
    nodes = []

    def make(*overrides):
        words = [word for o in overrides for word in ('-p', o)]
        nodes.append(Node('node', context=context, cli_args=['--ros-args', *words]))
        declare_parameters(nodes[-1], Config)
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_when_nothing_is_overridden_expect_the_defaults(make_node):
    assert read_config(make_node(), Config) == Config()


def test_when_overridden_expect_the_given_values(make_node):
    node = make_node('rate_hz:=20.0', 'joints:=[a, b]', 'mode:=reject', 'loud:=true', 'steps:=5')
    assert read_config(node, Config) == Config(20.0, 5, 'reject', ['a', 'b'], [1.0], True)


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('rate_hs:=20.0', "unknown parameter 'rate_hs'; did you mean 'rate_hz'"),
        ('rate_hz:=1000.0', 'rate_hz'),
        ('rate_hz:=fast', 'rate_hz'),
        ('steps:=0', 'steps'),
        ('gains:=[a]', 'gains'),
        ('rate_hz:=20', "'DOUBLE': rate_hz; write 20.0$"),
        ('gains:=[1, 2]', r"'gains'.*; write \[1.0, 2.0\]$"),
        ('rate_hz:=true', "'DOUBLE': rate_hz$"),
    ],
)
def test_when_override_is_wrong_expect_an_error_that_names_it(make_node, override, message):
    with pytest.raises(ParameterError, match=message):
        make_node(override)


def test_when_choice_is_unknown_expect_the_choices(make_node):
    node = make_node('mode:=careful')
    with pytest.raises(ParameterError, match='mode is .careful., not one of clamp, reject'):
        read_config(node, Config)


def test_when_described_expect_unit_bounds_and_read_only(make_node):
    node = make_node()
    rate = node.describe_parameter('rate_hz')
    assert 'Hz' in rate.description
    assert rate.floating_point_range[0].to_value == 100.0
    assert rate.read_only
    assert not node.describe_parameter('loud').read_only
    assert 'reject' in node.describe_parameter('mode').additional_constraints
