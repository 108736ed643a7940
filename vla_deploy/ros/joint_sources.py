# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Joint states of several drivers as one: names with prefixes, the stamp of the oldest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import JointState

from vla_deploy.core.parameter import ParameterError
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_ns


class JointSources:
    """Subscribes to topics of joint states; `entities` are what was put into the graph.

    One topic without a prefix is passed on as it is. Of several a state is passed on whenever each
    has been heard anew: a driver that falls silent silences all, whatever its stamps said.
    """

    def __init__(
        self, node: Node, topics: Sequence[str], prefixes: Sequence[str],
        callback: Callable[[JointState], Any],
    ) -> None:
        """Subscribe; raises ParameterError where the two lists do not go together."""
        prefixes = list(prefixes) or [''] * len(topics)
        if not topics or len(set(topics)) != len(topics):
            raise ParameterError('joint_state_topics must name one topic or more, each once')
        if len(prefixes) != len(topics):
            raise ParameterError(f'joint_state_prefixes has {len(prefixes)} entries, '
                                 f'joint_state_topics {len(topics)}')
        self._prefixes, self._callback = prefixes, callback
        self._newest: list[JointState | None] = [None] * len(topics)
        alone = prefixes == ['']
        self.entities = [
            node.create_subscription(
                JointState, topic, callback if alone else partial(self._on_state, i), qos.SENSOR)
            for i, topic in enumerate(topics)
        ]

    def _on_state(self, index: int, msg: JointState) -> None:
        self._newest[index] = msg
        heard = [state for state in self._newest if state is not None]
        if len(heard) == len(self._newest):
            self._newest = [None] * len(heard)
            self._callback(merged(heard, self._prefixes))


def merged(states: Sequence[JointState], prefixes: Sequence[str]) -> JointState:
    """Return several joint states as one; velocities only where each says those of all joints."""
    whole = JointState(header=min(states, key=lambda s: time_ns(s.header.stamp)).header)
    for state, prefix in zip(states, prefixes, strict=True):
        whole.name += [prefix + name for name in state.name]
        whole.position.extend(state.position)
    if all(len(state.velocity) == len(state.name) for state in states):
        for state in states:
            whole.velocity.extend(state.velocity)
    return whole
