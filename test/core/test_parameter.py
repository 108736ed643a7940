# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Configurations from parsed values: what is wrong is named, bounds included."""

import dataclasses
import math
from typing import Any

import pytest

from vla_deploy.core.parameter import (
    ParameterError,
    config_from_mapping,
    parameter,
    parameters_of,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """One parameter of each type."""

    rate_hz: float = parameter(10.0, 'how often', 'Hz', minimum=1.0, maximum=100.0)
    steps: int = parameter(3, 'how many', minimum=1, maximum=5)
    mode: str = parameter('clamp', 'which', choices=('clamp', 'reject'))
    joints: list[str] = parameter([], 'names')
    gains: list[float] = parameter([1.0], 'gains')
    loud: bool = parameter(False, 'whether')


def test_when_values_are_given_expect_them_in_the_declared_types_and_defaults_else() -> None:
    config = config_from_mapping(Config, {'rate_hz': 20, 'gains': [1, 2.5], 'joints': ('a',)})
    assert config == Config(rate_hz=20.0, gains=[1.0, 2.5], joints=['a'])
    assert isinstance(config.rate_hz, float)
    assert isinstance(config.gains[0], float)


@pytest.mark.parametrize('edge', [{'rate_hz': 1.0}, {'rate_hz': 100.0}, {'steps': 1},
                                  {'steps': 5}])
def test_when_a_value_is_at_its_bound_expect_it_taken(edge: dict[str, Any]) -> None:
    ((key, value),) = edge.items()
    assert getattr(config_from_mapping(Config, edge), key) == value


@pytest.mark.parametrize(('values', 'said'), [
    ({'rate_hs': 1.0}, "unknown parameter 'rate_hs'; did you mean 'rate_hz'?"),
    ({'xyzzy': 1.0}, "unknown parameter 'xyzzy'"),
    ({'rate_hz': 0.5}, 'rate_hz is 0.5, below its minimum 1.0'),
    ({'rate_hz': 100.5}, 'rate_hz is 100.5, above its maximum 100.0'),
    ({'rate_hz': math.nan}, 'rate_hz must be finite, not nan'),
    ({'rate_hz': math.inf}, 'rate_hz must be finite, not inf'),
    ({'rate_hz': True}, 'rate_hz must be float, not True'),
    ({'rate_hz': 'fast'}, "rate_hz must be float, not 'fast'"),
    ({'steps': 2.0}, 'steps must be int, not 2.0'),
    ({'steps': True}, 'steps must be int, not True'),
    ({'steps': 6}, 'steps is 6, above its maximum 5'),
    ({'loud': 1}, 'loud must be bool, not 1'),
    ({'mode': 'bend'}, "mode is 'bend', not one of clamp, reject"),
    ({'joints': 'a'}, "joints must be a list, not 'a'"),
    ({'joints': [1]}, 'joints must hold only str, not [1]'),
    ({'gains': ['1']}, "gains must hold only float, not ['1']"),
])
def test_when_a_value_is_wrong_expect_it_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError) as error:
        config_from_mapping(Config, values)
    assert str(error.value) == said


def test_when_a_parameter_has_no_default_expect_its_declaration_refused() -> None:
    @dataclasses.dataclass
    class Bare:
        rate_hz: float

    with pytest.raises(TypeError, match='Bare.rate_hz has no default'):
        parameters_of(Bare)
