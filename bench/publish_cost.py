# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What it costs to publish a joint state and an image of 640 x 480 to one reader, by each profile.

By UDP alone, by shared memory, and by shared memory with the discovery range LOCALHOST, to
which rmw_fastrtps adds transports of its own.

    python bench/publish_cost.py [OUTPUT.json]       default build/bench/publish_cost.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test' / 'graph')]

from _record import parser, write  # noqa: E402
from graph_process import Domain  # noqa: E402

from vla_deploy.demo.statistics import percentiles_ms  # noqa: E402
from vla_deploy.ros import qos  # noqa: E402
from vla_deploy.ros.images import rgb_to_image  # noqa: E402
from vla_deploy.ros.transport import PROFILES_FILE, RANGE  # noqa: E402
from vla_deploy.share import share_directory  # noqa: E402

STATES, STATES_PER_IMAGE, PERIOD_S = 1000, 7, 0.01
FORMS = {
    'UDP': ('control_localhost', 'SYSTEM_DEFAULT'),
    'shared memory': ('images_localhost', 'SYSTEM_DEFAULT'),
    'shared memory, LOCALHOST': ('images', 'LOCALHOST'),
}


def listen() -> None:
    """Hear both topics until told to end."""
    rclpy.init()
    node = Node('reader')
    for kind, topic in ((JointState, 'joint_states'), (Image, 'image')):
        node.create_subscription(kind, topic, lambda _: None, qos.SENSOR)
    rclpy.spin(node)


def publish() -> None:
    """Print how long each `publish` took, once both topics are heard."""
    rclpy.init()
    node = Node('writer')
    states = node.create_publisher(JointState, 'joint_states', qos.SENSOR)
    images = node.create_publisher(Image, 'image', qos.SENSOR)
    while not (states.get_subscription_count() and images.get_subscription_count()):
        time.sleep(0.05)
    state = JointState(name=[f'joint{i}' for i in range(7)], position=[0.0] * 7, velocity=[0.0] * 7)
    image = rgb_to_image(np.zeros((480, 640, 3), np.uint8), 0, 'camera')
    took_s: dict[str, list[float]] = {'joint state': [], 'image': []}
    for number in range(STATES):
        for name, publisher, message in (
            ('joint state', states, state), ('image', images, image)
        ):  # fmt: skip
            if name == 'joint state' or number % STATES_PER_IMAGE == 0:
                began_s = time.perf_counter()
                publisher.publish(message)
                took_s[name].append(time.perf_counter() - began_s)
        time.sleep(PERIOD_S)
    print(json.dumps(took_s))


def measure(profile: str, reach: str) -> dict[str, dict[str, float]]:
    """Return the percentiles [ms] of both messages between two processes with a profile."""
    environment = {
        **os.environ,
        PROFILES_FILE: str(share_directory() / 'config' / 'fastdds' / f'{profile}.xml'),
        RANGE: reach,
    }
    reader = subprocess.Popen([sys.executable, __file__, '--listen'], env=environment)
    try:
        writer = subprocess.run(
            [sys.executable, __file__, '--publish'],
            env=environment, stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
    finally:
        reader.kill()
        reader.wait()
    took_s = json.loads(writer.stdout.splitlines()[-1])
    return {name: percentiles_ms(values) for name, values in took_s.items()}


def main() -> int:
    """Print a line for each profile and write them as JSON."""
    options = parser(__doc__ or '', 'publish_cost')
    options.add_argument('--publish', action='store_true', help=argparse.SUPPRESS)
    options.add_argument('--listen', action='store_true', help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.publish or arguments.listen:
        publish() if arguments.publish else listen()
        return 0
    domain = Domain()
    os.environ['ROS_DOMAIN_ID'] = str(domain.number)
    results = {}
    for name, (profile, reach) in FORMS.items():
        results[name] = measure(profile, reach)
        text = '; '.join(
            f'{what} p50 {ms["p50"] * 1e3:.0f} us, p99 {ms["p99"] * 1e3:.0f} us'
            for what, ms in results[name].items()
        )
        print(f'publish by {name}: {text}', flush=True)
    domain.release()
    write(arguments.output, results)
    return 0


if __name__ == '__main__':
    sys.exit(main())
