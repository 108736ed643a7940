# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Checks names of topics and nodes that parameters give, before anything is made for them."""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name

from vla_deploy.core.parameter import ParameterError

_NOISE = 'failed to resolve name: '


def resolved_topics(node: Node, parameter: str, names: Iterable[str]) -> dict[str, str]:
    """Return each topic with the name that it has in the graph.

    Raises ParameterError for one that ROS refuses; `parameter` is where the names come from.
    """
    resolved = {}
    for name in names:
        try:
            resolved[name] = node.resolve_topic_name(name)
        except RuntimeError as error:  # rcl's own class of errors is not in the public API
            raise _refused(parameter, name, 'topic', error) from None
    return resolved


def check_topics(node: Node, config: object, *parameters: str) -> None:
    """Raise ParameterError for a name that ROS refuses among these lists of topics in `config`."""
    for parameter in parameters:
        resolved_topics(node, parameter, getattr(config, parameter))


def check_nodes(parameter: str, names: Iterable[str]) -> None:
    """Raise ParameterError for what is neither the name of a node nor a namespace and a name."""
    for full in names:
        space, _, name = full.rpartition('/')
        try:
            validate_node_name(name)
            validate_namespace(space or '/')
        except NameValidationException as error:
            raise _refused(parameter, full, 'node', error) from None


def _refused(parameter: str, name: str, what: str, error: Exception) -> ParameterError:
    reason = str(error).splitlines()[0].partition(', at ')[0].removeprefix(_NOISE).rstrip(':')
    return ParameterError(f'parameter {parameter!r}: {name!r} is no name of a {what}: {reason}')
