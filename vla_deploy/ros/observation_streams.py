# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras and joint states of an inference node, kept until an observation is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_deploy.core.contract import Contract
from vla_deploy.pipeline.assembly import Assembled, ObservationAssembler, StreamError
from vla_deploy.pipeline.inference_config import InferenceConfig
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import ConversionError, JointMap, time_ns
from vla_deploy.ros.graph_names import resolved_topics
from vla_deploy.ros.joint_sources import JointSources
from vla_deploy.ros.lifecycle import ConfigureError


class ObservationStreams:
    """Subscribes to what a contract asks for; `entities` are what was put into the graph."""

    def __init__(
        self,
        node: Node,
        contract: Contract,
        config: InferenceConfig,
        on_image: Callable[[], None],
    ) -> None:
        """Subscribe; `on_image` is called after each image."""
        self._assembler = ObservationAssembler(
            _max_ages_s(contract.camera_names, config),
            config.joint_state_max_age_s,
            config.max_skew_s,
        )
        self._now_ns: Callable[[], int] = lambda: int(node.get_clock().now().nanoseconds)
        self._joint_map = JointMap(contract.state.joints or ())
        self._joint_state_error = ''
        self._on_new_image = on_image
        self._joints = tuple(contract.state.joints or ())
        self._newest_state: tuple[int, NDArray[np.float64]] | None = None
        subscribe = node.create_subscription
        sources = _sources(contract.camera_names, config)
        # Before the first subscription, which a name that ROS refuses would leave in the graph.
        resolved_topics(node, 'bundle', [topic for _kind, topic in sources.values()])
        self.entities: list[Any] = [
            *JointSources(node, config.joint_state_topics, config.joint_state_prefixes,
                          self._on_joint_state).entities,
            *(
                subscribe(*source, partial(self._on_image, camera), qos.SENSOR)
                for camera, source in sources.items()
            ),
        ]

    def assemble(self, now_ns: int) -> Assembled:
        """Return an observation that is fresh and in step, or raise StreamError."""
        try:
            return self._assembler.assemble(now_ns)
        except StreamError as error:
            # Joint states that came and could not be used explain why there is none.
            if self._joint_state_error and str(error).startswith('joint_states'):
                raise StreamError(self._joint_state_error) from error
            raise

    def clear(self) -> None:
        """Forget everything, as after a backward jump of the clock."""
        self._assembler.clear()
        self._newest_state = None

    def newest_positions(self, joints: Sequence[str]) -> tuple[int, NDArray[np.float64] | None]:
        """Return ROS time [ns] and positions [joints] of the newest usable joint state; None
        before the first, or where a joint is not among those of the policy's state."""
        if self._newest_state is None or not set(joints) <= set(self._joints):
            return 0, None
        stamp_ns, position = self._newest_state
        return stamp_ns, position[[self._joints.index(name) for name in joints]]

    def _on_image(self, camera: str, msg: Image | CompressedImage) -> None:
        self._assembler.add_image(camera, time_ns(msg.header.stamp), msg, self._now_ns())
        self._on_new_image()

    def _on_joint_state(self, msg: JointState) -> None:
        try:
            position = self._joint_map.positions(msg)
        except ConversionError as error:
            self._joint_state_error = f'joint_states: {error}'
            return
        self._joint_state_error = ''
        stamp_ns = time_ns(msg.header.stamp)
        self._newest_state = (stamp_ns, position)
        self._assembler.add_state(stamp_ns, position, self._now_ns())


def _max_ages_s(cameras: Sequence[str], config: InferenceConfig) -> dict[str, float]:
    ages_s = config.camera_max_age_s or [config.image_max_age_s] * len(cameras)
    if len(ages_s) != len(cameras) or not all(age_s > 0.0 for age_s in ages_s):
        raise ConfigureError(
            f"parameter 'camera_max_age_s' is {ages_s}, but must hold an age above 0 for each of "
            f'{", ".join(cameras)}'
        )
    return dict(zip(cameras, ages_s, strict=True))


def _sources(cameras: Sequence[str], config: InferenceConfig) -> dict[str, tuple[type, str]]:
    """Return the type and the topic of each camera."""
    unknown = set(config.compressed_cameras) - set(cameras)
    if unknown:
        raise ConfigureError(
            f"parameter 'compressed_cameras' names {', '.join(sorted(unknown))}; the policy has "
            f'{", ".join(cameras)}'
        )
    return {
        camera: (CompressedImage, f'image/{camera}/compressed')
        if camera in config.compressed_cameras
        else (Image, f'image/{camera}')
        for camera in cameras
    }
