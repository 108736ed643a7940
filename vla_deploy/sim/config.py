# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The parameters of the simulated robot."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from vla_deploy.core.parameter import ParameterError, parameter
from vla_deploy.sim.controller import ControllerConfig
from vla_deploy.sim.robot import Layout, RobotConfig
from vla_deploy.sim.scene_config import (
    CameraMount,
    CameraSize,
    SceneConfig,
    franka_mounts,
)

_MOUNTS = franka_mounts()


def _flat(points: Iterable[tuple[float, ...]]) -> list[float]:
    return [value for point in points for value in point]


@dataclasses.dataclass(frozen=True)
class SimRobotConfig:
    """Parameters of the node `sim_robot`."""

    urdf_path: str = parameter('', 'Robot description that is simulated and published.')
    joints: list[str] = parameter(
        [f'fr3_joint{i}' for i in range(1, 8)], 'Joints that the controller drives.'
    )
    command: str = parameter(
        'position',
        'position: a trajectory controller on joint_trajectory. velocity: a controller on '
        'velocity_commands (Float64MultiArray, in the order of joints).',
        choices=('position', 'velocity'),
    )
    velocity_timeout_s: float = parameter(
        0.5,
        'Time after which a velocity command no longer holds and the robot stands still.',
        's',
        minimum=0.01,
        maximum=10.0,
    )
    home_position: list[float] = parameter(
        [],
        'Where the joints start, in their order; empty: as the reach task says for its FR3.',
        'rad or m',
    )
    joint_state_order: list[str] = parameter(
        [], 'Joints in joint_states, in this order; empty: all, as in the description.'
    )
    seed: int = parameter(0, 'Seed of the first placement of arm and cubes.', minimum=0)
    clock: str = parameter(
        'wall',
        'wall: physics keeps the pace of the system clock. simulated: the node publishes /clock '
        'and waits for its own rendering; the other nodes need use_sim_time.',
        choices=('wall', 'simulated'),
    )
    real_time_factor: float = parameter(
        1.0,
        'Most simulated seconds in a second of wall time; only with the simulated clock.',
        minimum=0.01,
        maximum=100.0,
    )
    joint_state_rate_hz: float = parameter(
        100.0, 'Rate of joint_states, and of /clock where it is published.', 'Hz',
        minimum=1.0, maximum=500.0,
    )
    image_rate_hz: float = parameter(
        15.0,
        'Mean rate of each camera; an image is taken together with a joint state.',
        'Hz',
        minimum=0.1,
        maximum=100.0,
    )
    image_width: int = parameter(256, 'Width of every image.', 'px', minimum=16, maximum=4096)
    image_height: int = parameter(256, 'Height of every image.', 'px', minimum=16, maximum=4096)
    cameras: list[str] = parameter(
        ['front', 'wrist'], 'Cameras that are drawn and published, of those in mount_names.'
    )
    mount_names: list[str] = parameter(
        list(_MOUNTS), 'Cameras that there are; the lists below have an entry for each.'
    )
    mount_links: list[str] = parameter(
        [mount.link for mount in _MOUNTS.values()],
        "Link that carries the camera; '': it stands still in the base frame.",
    )
    mount_positions: list[float] = parameter(
        _flat(mount.position for mount in _MOUNTS.values()),
        "Position of each camera, x y z, in its link's frame.",
        'm',
    )
    mount_targets: list[float] = parameter(
        _flat(mount.target for mount in _MOUNTS.values()),
        "Point that each camera looks at, x y z, in its link's frame.",
        'm',
    )
    mount_ups: list[float] = parameter(
        _flat(mount.up for mount in _MOUNTS.values()),
        "Direction that is up in the image, x y z, in its link's frame.",
    )
    mount_fovy_deg: list[float] = parameter(
        [mount.fovy_deg for mount in _MOUNTS.values()], 'Vertical field of view.', 'deg'
    )
    tool_link: str = parameter(
        'fr3_hand_tcp', 'Link whose position is published on ~/tool_position.'
    )
    table_centre: list[float] = parameter([0.35, 0.0], 'Middle of the table top, x y.', 'm')
    table_size: list[float] = parameter([1.3, 1.2], 'Size of the table top, x y.', 'm')
    cube_edge: float = parameter(0.05, 'Edge of the cubes.', 'm', minimum=0.001, maximum=1.0)
    cube_origin: list[float] = parameter(
        [0.0, 0.0], 'Where (0, 0) of the reach task lies for the cubes, x y.', 'm'
    )
    cube_scale: float = parameter(
        1.0, 'Factor on the positions of the cubes in the reach task.', minimum=0.01, maximum=10.0
    )
    cube_yaw_deg: float = parameter(
        0.0, 'Turn of the positions of the cubes about cube_origin.', 'deg', -360.0, 360.0
    )
    interpolate_from_desired_state: bool = parameter(
        False, 'A new trajectory starts from the last command, not from the measured state.'
    )
    allow_nonzero_velocity_at_trajectory_end: bool = parameter(
        False, 'Take trajectories that do not end at rest.'
    )
    max_lag_s: float = parameter(
        0.5,
        'A jump of the clock longer than this is not simulated through; physics goes on after it.',
        's',
        minimum=0.02,
        maximum=10.0,
    )

    def robot(self) -> RobotConfig:
        """Return what the simulated robot needs of this; raises ParameterError for a bad list."""
        size = CameraSize(self.image_width, self.image_height)
        if not self.cameras:
            raise ParameterError(
                f"parameter 'cameras' is empty: name at least one of {', '.join(self.mount_names)}"
            )
        if self.home_position:
            _length('home_position', self.home_position, len(self.joints), 'joints')
        return RobotConfig(
            joints=tuple(self.joints),
            scene=SceneConfig(
                cameras={name: size for name in self.cameras},
                mounts=self._mounts(),
                cube_edge=self.cube_edge,
                tool_link=self.tool_link,
                table_centre=_pair('table_centre', self.table_centre),
                table_size=_pair('table_size', self.table_size),
            ),
            layout=Layout(
                home=tuple(self.home_position),
                cube_origin=_pair('cube_origin', self.cube_origin),
                cube_scale=self.cube_scale,
                cube_yaw_rad=math.radians(self.cube_yaw_deg),
            ),
            controller=ControllerConfig(
                self.interpolate_from_desired_state, self.allow_nonzero_velocity_at_trajectory_end
            ),
            command=self.command,
            velocity_timeout_s=self.velocity_timeout_s,
            joint_state_order=tuple(self.joint_state_order),
            max_lag_s=self.max_lag_s,
        )

    def _mounts(self) -> dict[str, CameraMount]:
        count = len(self.mount_names)
        for name, width in (('mount_links', 1), ('mount_positions', 3), ('mount_targets', 3),
                            ('mount_ups', 3), ('mount_fovy_deg', 1)):  # fmt: skip
            _length(name, getattr(self, name), width * count, 'mount_names')
        return {
            name: CameraMount(
                position=_triple(self.mount_positions, i),
                target=_triple(self.mount_targets, i),
                up=_triple(self.mount_ups, i),
                fovy_deg=self.mount_fovy_deg[i],
                link=self.mount_links[i],
            )
            for i, name in enumerate(self.mount_names)
        }


def _triple(values: list[float], index: int) -> tuple[float, float, float]:
    x, y, z = values[3 * index : 3 * index + 3]
    return x, y, z


def _pair(name: str, values: list[float]) -> tuple[float, float]:
    _length(name, values, 2, 'x and y')
    return values[0], values[1]


def _length(name: str, values: list[float] | list[str], length: int, to: str) -> None:
    if len(values) != length:
        raise ParameterError(f'{name} has {len(values)} values, not {length} as {to} asks for')
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ParameterError(f'{name} must be finite, not {value!r}')
