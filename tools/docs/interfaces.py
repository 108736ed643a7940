# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Write docs/interfaces.md from what the nodes really offer once they are configured.

    python tools/docs/interfaces.py            write the file
    python tools/docs/interfaces.py --check    exit 1 if it is not what it should be

Guard and inference of the simulated FR3 are brought up in this process and asked for their topics,
services and actions. A name without a description below is an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from vla_deploy.export.own_bundle import bundle_for
from vla_deploy.files import read_yaml
from vla_deploy.nodes.guard import GuardNode
from vla_deploy.nodes.inference import InferenceNode
from vla_deploy.share import share_directory

TARGET = Path(__file__).parents[2] / 'docs' / 'interfaces.md'
DOMAIN = 199
ROBOT, CAMERA = 'franka', 'front'
# What every node has, by the last part of its name; and what describes actions to tools.
COMMON = {
    'rosout', 'parameter_events', 'describe_parameters', 'get_parameter_types', 'get_parameters',
    'list_parameters', 'set_parameters', 'set_parameters_atomically', 'get_type_description',
    'change_state', 'get_state', 'get_available_states', 'get_available_transitions',
    'get_transition_graph', 'transition_event', 'clock',
}  # fmt: skip
MEANINGS = {
    'image/<camera>': 'one topic for each camera of the policy',
    'joint_states': 'measured positions, matched by name; velocities too where there are any',
    'instruction': 'text to follow; a new one begins a new session',
    'action_chunk': 'a plan of actions; see the message for every field',
    'execution_state': 'how much of which chunk is consumed, and the commanded state',
    'joint_trajectory': 'the command; the guard must be its only publisher',
    'estop': 'true stops and latches',
    'robot_description': 'URDF of the robot',
    'guard/status': 'state, reason, counters, latencies; in every lifecycle state',
    'guard/violations': 'each broken rule: joint, sample, value, limit',
    'inference/status': 'health, reason, parity, latencies; in every lifecycle state',
    'inference/action_chunk_flat': 'the actions as a plain array, layout filled, for tools',
    '/diagnostics': 'both nodes at 1 Hz, for rqt and dashboards',
    'guard/arm': 'take control; refused with the reason',
    'guard/disarm': 'come to a planned stop and give control back',
    'guard/tighten_limits': 'read the limits again; taken, once the robot stands, if nowhere wider',
    'guard/estop': 'stop and latch',
    'guard/reset': 'leave ESTOP_LATCHED or FAULT for DISARMED, once the cause is gone',
    'inference/start': 'follow the last instruction again',
    'inference/stop': 'end the session; the guard brakes and holds',
    'get_action_chunk': 'one chunk on demand, verified, not executed; errors have a code',
    'execute_instruction': 'follow a text until cancelled, or time or chunks are up; a new goal '
    'replaces the running one',
}


@dataclass(frozen=True)
class Interface:
    """One name of one node. direction: publishes, subscribes, serves or acts."""

    node: str
    direction: str
    name: str
    kind: str
    qos: str


def interfaces() -> list[Interface]:
    """Return what the configured nodes offer."""
    rclpy.init(domain_id=DOMAIN)
    nodes: list[Any] = []
    try:
        for make, name in ((GuardNode, 'guard'), (InferenceNode, 'inference')):
            nodes.append(make(parameter_overrides=_parameters(name)))
            if nodes[-1].trigger_configure() != TransitionCallbackReturn.SUCCESS:
                raise SystemExit(f'{name} does not configure: {nodes[-1].configure_error}')
        return [found for node in nodes for found in _of(node)]
    finally:
        for node in nodes:
            node.trigger_shutdown()
            node.destroy_node()
        rclpy.shutdown()


def _parameters(node: str) -> list[Parameter]:
    """Return the parameters of the robot's own file, and what a bring-up would give."""
    share = share_directory()
    description = read_yaml(share / 'config' / ROBOT / 'bringup.yaml')
    values = dict(next(iter(read_yaml(share / 'config' / ROBOT / f'{node}.yaml').values()))[
        'ros__parameters'])
    if node == 'guard':
        values['urdf_path'] = str(share / description['urdf'])
        values['limits_path'] = str(share / description['limits'])
    else:
        values |= {'bundle': str(bundle_for(ROBOT, '')), 'backend': 'stub'}
    values['autostart'] = False
    return [Parameter(name, value=value) for name, value in values.items()]


def _of(node: Node) -> Iterator[Interface]:
    name, space = node.get_name(), node.get_namespace()
    for direction, listed, info in (
        ('subscribes', node.get_subscriber_names_and_types_by_node,
         node.get_subscriptions_info_by_topic),
        ('publishes', node.get_publisher_names_and_types_by_node,
         node.get_publishers_info_by_topic),
    ):
        for topic, kinds in sorted(listed(name, space)):
            profiles = [i.qos_profile for i in info(topic) if i.node_name == name]
            qos = ' and '.join(dict.fromkeys(_qos(p) for p in profiles))
            yield from _kept(Interface(name, direction, topic, kinds[0], qos))
    for service, kinds in sorted(node.get_service_names_and_types_by_node(name, space)):
        yield from _kept(Interface(name, 'serves', service, kinds[0], ''))
    for action, kinds in sorted(get_action_server_names_and_types_by_node(node, name, space)):
        yield from _kept(Interface(name, 'acts', action, kinds[0], ''))


def _kept(found: Interface) -> Iterator[Interface]:
    if found.name.split('/')[-1] not in COMMON and '/_action/' not in found.name:
        yield found


def _qos(profile: Any) -> str:
    reliable = profile.reliability == ReliabilityPolicy.RELIABLE
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return ('reliable' if reliable else 'best effort') + (', latched' if latched else '')


def document(found: list[Interface]) -> str:
    """Return the whole document."""
    lines = [
        '# Topics, services and actions',
        '',
        'Generated by `python tools/docs/interfaces.py` from the running nodes of the simulated '
        'FR3; a test fails where the two differ. Names are relative, so that a namespace moves all '
        'of them; every field of every message carries its unit in '
        '[vla_deploy_msgs/](../vla_deploy_msgs).',
        '',
        '| node | | name | type | QoS | what it is |',
        '|---|---|---|---|---|---|',
    ]
    for i in found:
        name = _relative(i.name)
        if name not in MEANINGS:
            raise SystemExit(f'{i.node} {i.direction} {name}: describe it in {Path(__file__).name}')
        lines.append(
            f'| {i.node} | {i.direction} | `{name}` | {i.kind} | {i.qos} | {MEANINGS[name]} |'
        )
    return '\n'.join(lines) + '\n'


def _relative(name: str) -> str:
    if name == '/diagnostics':
        return name
    return name.removeprefix('/').replace(f'image/{CAMERA}', 'image/<camera>')


def main() -> int:
    """Write or check the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='compare only')
    arguments = parser.parse_args()
    text = document(interfaces())
    if arguments.check:
        current = TARGET.read_text() if TARGET.is_file() else ''
        if current != text:
            print(f'{TARGET.name} is not current: run python tools/docs/interfaces.py')
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
