# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Three cameras of 640 x 480 at 15 Hz and 100 Hz joint states into a bag: is anything left out,
what does it cost, and does the guard's tick notice?

    python bench/recorder.py [OUTPUT.json] [--seconds 300]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test' / 'graph')]

from _record import parser, write  # noqa: E402
from fr3_motion import HOME, JOINTS, guard_parameters  # noqa: E402
from graph_process import Domain  # noqa: E402

from vla_deploy.ros import qos  # noqa: E402
from vla_deploy.ros.conversions import time_msg  # noqa: E402
from vla_deploy.ros.images import rgb_to_image  # noqa: E402
from vla_deploy.ros.transport import IMAGES, use_profile  # noqa: E402
from vla_deploy.trace.bag import Bag  # noqa: E402
from vla_deploy_msgs.msg import GuardStatus, RecorderStatus  # noqa: E402

CAMERAS = ('front', 'left', 'wrist')
IMAGE_HZ, STATE_HZ = 15, 100
SETTLE_S = 12.0  # the guard's percentiles are of its last 1000 ticks
CPU_BAR, TICK_BAR_S = 0.4, 0.2e-3


def publish(seconds: float) -> None:
    """Be the robot: states and images, once the recorder hears all of them."""
    rclpy.init()
    node = Node('robot')
    states = node.create_publisher(JointState, 'joint_states', qos.SENSOR)
    images = [node.create_publisher(Image, f'image/{camera}', qos.SENSOR) for camera in CAMERAS]
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    begin_s, tick, counted = time.monotonic(), 0, -1
    while counted < seconds * STATE_HZ:
        time.sleep(max(0.0, begin_s + tick / STATE_HZ - time.monotonic()))
        heard = states.get_subscription_count() >= 2  # the guard, and who listens
        if counted < 0 and heard and all(p.get_subscription_count() for p in images):
            counted = 0
        now_ns = node.get_clock().now().nanoseconds
        # What counts is numbered in frame_id; the rest keeps the guard content meanwhile.
        frame = str(counted) if counted >= 0 else ''
        state = JointState(name=list(JOINTS), position=list(HOME), velocity=[0.0] * len(HOME))
        state.header.stamp, state.header.frame_id = time_msg(now_ns), frame
        states.publish(state)
        if counted >= 0:
            due = counted * IMAGE_HZ // STATE_HZ
            if counted == 0 or due != (counted - 1) * IMAGE_HZ // STATE_HZ:
                for publisher in images:
                    publisher.publish(rgb_to_image(pixels, now_ns, str(due)))
            counted += 1
        tick += 1
    while True:  # the guard must not lose its robot before it is ended
        state.header.stamp = time_msg(node.get_clock().now().nanoseconds)
        state.header.frame_id = ''
        states.publish(state)
        time.sleep(1 / STATE_HZ)


class Listener:
    """The statuses of guard and recorder."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = Node('bench')
        self.tick_p99_s: list[float] = []
        self.step_p99_s: list[float] = []
        self.recorder = RecorderStatus()
        self.node.create_subscription(GuardStatus, 'guard/status', self._on_guard, qos.STATUS)
        self.node.create_subscription(
            RecorderStatus, 'recorder/status', self._on_recorder, qos.STATUS
        )

    def _on_guard(self, msg: GuardStatus) -> None:
        self.tick_p99_s.append(msg.tick_lateness_p99_s)
        self.step_p99_s.append(msg.step_p99_s)

    def _on_recorder(self, msg: RecorderStatus) -> None:
        self.recorder = msg

    def spin(self, seconds: float) -> None:
        """Listen for a while."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            rclpy.spin_once(self.node, timeout_sec=0.1)


def node_command(name: str, **parameters: object) -> list[str]:
    """Return the command of a node of the package."""
    words = [sys.executable, '-m', f'vla_deploy.nodes.{name}', '--ros-args']
    for key, value in parameters.items():
        words += ['-p', f'{key}:={json.dumps(value)}']
    return words


def run(seconds: float, folder: Path | None) -> dict[str, float]:
    """Run robot and guard, and the recorder if there is a folder; return what was measured."""
    listener = Listener()
    commands = {'guard': node_command('guard', **guard_parameters())}
    if folder is not None:
        topics = [f'image/{camera}' for camera in CAMERAS]
        commands['recorder'] = ['nice', '-n', '10', *node_command(
            'recorder', directory=str(folder), nodes=['guard'], topics=topics)]  # fmt: skip
    else:
        commands['sink'] = [sys.executable, __file__, '--listen']
    commands['robot'] = [sys.executable, __file__, '--publish', '--seconds', str(seconds)]
    processes = {name: subprocess.Popen(command) for name, command in commands.items()}
    try:
        listener.spin(SETTLE_S)
        listener.tick_p99_s.clear()
        listener.step_p99_s.clear()
        begin_s, before_s = time.monotonic(), cpu_s(processes.get('recorder'))
        listener.spin(max(2.0, seconds - SETTLE_S))
        used = (cpu_s(processes.get('recorder')) - before_s) / (time.monotonic() - begin_s)
        listener.spin(SETTLE_S)
    finally:
        for name, process in processes.items():
            process.send_signal(signal.SIGINT if name in ('guard', 'recorder') else signal.SIGKILL)
            process.wait(30)
        rclpy.shutdown()
    return {
        'tick_lateness_p99_s': float(np.median(listener.tick_p99_s)),
        'step_p99_s': float(np.median(listener.step_p99_s)),
        'recorder_cpu_cores': used,
        'dropped': float(listener.recorder.dropped),
        'lost': float(listener.recorder.lost),
    }


def cpu_s(process: subprocess.Popen[bytes] | None) -> float:
    """Return the processor time of a process so far."""
    if process is None:
        return 0.0
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def missing_numbers(folder: Path, seconds: float) -> dict[str, int]:
    """Return how many of the numbered messages of each topic are not in the bag."""
    numbers: dict[str, set[int]] = {}
    (path,) = folder.iterdir()
    bag = Bag(path)
    for recorded in bag.messages({'sensor_msgs/msg/Image', 'sensor_msgs/msg/JointState'}):
        frame = bag.decode(recorded).header.frame_id
        if frame:
            numbers.setdefault(recorded.topic, set()).add(int(frame))
    states = int(seconds * STATE_HZ)
    images = (states - 1) * IMAGE_HZ // STATE_HZ + 1
    sent = {'/joint_states': states} | {f'/image/{camera}': images for camera in CAMERAS}
    return {topic: count - len(numbers.get(topic, ())) for topic, count in sent.items()}


def listen() -> None:
    """Hear the robot, so that without a recorder its messages are sent as well."""
    rclpy.init()
    node = Node('sink')
    node.create_subscription(JointState, 'joint_states', lambda _: None, qos.SENSOR, raw=True)
    for camera in CAMERAS:
        node.create_subscription(Image, f'image/{camera}', lambda _: None, qos.SENSOR, raw=True)
    rclpy.spin(node)


def main() -> int:
    """Return 1 if a bar is missed."""
    options = parser(__doc__ or '', 'recorder')
    options.add_argument('--seconds', type=float, default=300.0)
    options.add_argument('--baseline-seconds', type=float, default=30.0)
    options.add_argument('--publish', action='store_true', help=argparse.SUPPRESS)
    options.add_argument('--listen', action='store_true', help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.publish or arguments.listen:
        publish(arguments.seconds) if arguments.publish else listen()
        return 0
    domain = Domain()
    os.environ['ROS_DOMAIN_ID'] = str(domain.number)
    use_profile(IMAGES)
    without = run(arguments.baseline_seconds, None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / 'bags'
        recorded = run(arguments.seconds, folder)
        missing = missing_numbers(folder, arguments.seconds)
    slower_s = recorded['tick_lateness_p99_s'] - without['tick_lateness_p99_s']
    write(arguments.output, {'seconds': arguments.seconds, 'without': without,
                             'recorded': recorded, 'missing': missing})  # fmt: skip
    print(
        f'recorder, 3 cameras 640x480 at 15 Hz and 100 Hz states for {arguments.seconds:.0f} s: '
        f'{sum(missing.values())} missing ({recorded["dropped"]:.0f} dropped, '
        f'{recorded["lost"]:.0f} lost), {100 * recorded["recorder_cpu_cores"]:.0f} % of a core; '
        f'tick lateness p99 {without["tick_lateness_p99_s"] * 1e3:.2f} ms without, '
        f'{recorded["tick_lateness_p99_s"] * 1e3:.2f} ms with'
    )
    fine = sum(missing.values()) == 0 and recorded['recorder_cpu_cores'] <= CPU_BAR
    return 0 if fine and slower_s <= TICK_BAR_S else 1


if __name__ == '__main__':
    sys.exit(main())
