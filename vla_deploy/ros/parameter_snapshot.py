# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Asks other nodes for all their parameters, without waiting for any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient

_RETRY_POLLS = 10  # an answer can get lost; ask again after so many polls


class ParameterSnapshot:
    """Gives the parameters of each node once, when it has answered for all of them."""

    def __init__(
        self, node: Node, names: Sequence[str], give: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self._give = give
        self._waiting = {name: AsyncParameterClient(node, name) for name in names}
        self._polls = 0

    def poll(self) -> None:
        """Ask the nodes that are there and have not answered."""
        if self._polls % _RETRY_POLLS == 0:
            for name, client in self._waiting.items():
                if client.services_are_ready():
                    _Asked(name, client, self._on_answer).begin()
        self._polls += 1

    def _on_answer(self, node: str, values: dict[str, Any]) -> None:
        if self._waiting.pop(node, None) is not None:
            self._give(node, values)


class _Asked:
    """The parameters of one node. A node answers for none of a list of names if one of them has
    no value, so a list that gets no answers is asked for in halves."""

    def __init__(
        self, node: str, client: AsyncParameterClient, done: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self._node, self._client, self._done = node, client, done
        self._values: dict[str, Any] = {}
        self._expected = 0

    def begin(self) -> None:
        self._client.list_parameters().add_done_callback(
            lambda future: self._on_names(list(future.result().result.names))
        )

    def _on_names(self, names: list[str]) -> None:
        self._expected = len(names)
        self._ask(names)

    def _ask(self, names: list[str]) -> None:
        self._client.get_parameters(names).add_done_callback(
            lambda future: self._on_values(names, future.result().values)
        )

    def _on_values(self, names: list[str], values: Sequence[Any]) -> None:
        if len(values) == len(names):
            decoded = [parameter_value_to_python(value) for value in values]
            self._values |= dict(zip(names, decoded, strict=True))
        elif len(names) == 1:
            self._values[names[0]] = None
        else:
            self._ask(names[: len(names) // 2])
            self._ask(names[len(names) // 2 :])
        if len(self._values) == self._expected:
            self._done(self._node, self._values)
