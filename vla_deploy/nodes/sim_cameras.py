# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The cameras of the simulated robot: the process that sim_robot starts to draw and publish."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from vla_deploy.ros import qos
from vla_deploy.ros.images import rgb_to_image
from vla_deploy.sim.image_process import CameraJob, serve_views


def main(args: Sequence[str] | None = None) -> int:
    """Serve the pipe until the simulation closes its end.

    args: the file descriptors of the pipe and of a file with the job.
    """
    pipe, file = map(int, sys.argv[1:] if args is None else args)
    with os.fdopen(file, 'rb') as stream:
        job: CameraJob = pickle.load(stream)
    with Connection(pipe) as connection:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = Node(
            job.node,
            namespace=job.namespace,
            use_global_arguments=False,
            start_parameter_services=False,
        )
        publishers = {
            camera: node.create_publisher(Image, topic, qos.SENSOR)
            for camera, topic in job.topics.items()
        }

        def publish(camera: str, image: NDArray[np.uint8], stamp_ns: int) -> None:
            publishers[camera].publish(rgb_to_image(image, stamp_ns, camera))

        serve_views(connection, job, publish)
        node.destroy_node()
        rclpy.shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
