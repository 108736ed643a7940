# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Images of 640 x 480 from two cameras at 15 Hz between two processes: are frames lost?

    python bench/image_transport.py [OUTPUT.json] [--seconds 60]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from _record import parser, write  # noqa: E402

from vla_deploy.demo.statistics import percentiles_ms  # noqa: E402
from vla_deploy.ros import qos  # noqa: E402
from vla_deploy.ros.conversions import time_ns  # noqa: E402
from vla_deploy.ros.images import rgb_to_image  # noqa: E402
from vla_deploy.ros.transport import IMAGES, use_profile  # noqa: E402

CAMERAS = ('front', 'wrist')
RATE_HZ = 15.0


def publish(seconds: float) -> None:
    """Publish numbered images; the number is in frame_id."""
    rclpy.init()
    node = Node('image_source')
    publishers = [node.create_publisher(Image, f'image/{c}', qos.SENSOR) for c in CAMERAS]
    while any(p.get_subscription_count() == 0 for p in publishers):
        time.sleep(0.05)
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    begin = time.monotonic()
    for number in range(int(seconds * RATE_HZ)):
        time.sleep(max(0.0, begin + number / RATE_HZ - time.monotonic()))
        for publisher in publishers:
            stamp = node.get_clock().now().nanoseconds
            publisher.publish(rgb_to_image(pixels, stamp, str(number)))
    time.sleep(1.0)
    rclpy.shutdown()


def receive(seconds: float) -> dict[str, object]:
    """Count what arrives from a publisher in a process of its own."""
    command = [sys.executable, __file__, '--publish', '--seconds', str(seconds)]
    rclpy.init()
    node = Node('image_sink')
    numbers: dict[str, list[int]] = {c: [] for c in CAMERAS}
    ages_s: list[float] = []

    def take(camera: str, msg: Image) -> None:
        ages_s.append((node.get_clock().now().nanoseconds - time_ns(msg.header.stamp)) * 1e-9)
        numbers[camera].append(int(msg.header.frame_id))

    for camera in CAMERAS:
        node.create_subscription(
            Image, f'image/{camera}', lambda msg, c=camera: take(c, msg), qos.SENSOR
        )
    source = subprocess.Popen(command)
    while source.poll() is None:
        rclpy.spin_once(node, timeout_sec=0.05)
    sent = int(seconds * RATE_HZ) * len(CAMERAS)
    arrived = sum(len(set(n)) for n in numbers.values())
    rclpy.shutdown()
    return {'sent': sent, 'arrived': arrived, 'age_ms': percentiles_ms(ages_s)}


def main() -> int:
    """Return 1 if a frame was lost."""
    options = parser(__doc__ or '', 'image_transport')
    options.add_argument('--seconds', type=float, default=60.0)
    options.add_argument('--publish', action='store_true', help=argparse.SUPPRESS)
    arguments = options.parse_args()
    use_profile(IMAGES)
    if arguments.publish:
        publish(arguments.seconds)
        return 0
    result = {'seconds': arguments.seconds, **receive(arguments.seconds)}
    write(arguments.output, result)
    age = result['age_ms']
    print(
        f'image transport, 640x480 x 2 at 15 Hz for {arguments.seconds:.0f} s: {result["arrived"]} '
        f'of {result["sent"]} arrived, age p50 {age["p50"]:.1f} ms, p99 {age["p99"]:.1f} ms'
    )
    return 0 if result['arrived'] == result['sent'] else 1


if __name__ == '__main__':
    sys.exit(main())
