# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The parameters of the simulated robot."""

from __future__ import annotations

import dataclasses

from vla_deploy.core.parameter import parameter
from vla_deploy.sim.controller import ControllerConfig
from vla_deploy.sim.robot import RobotConfig
from vla_deploy.sim.scene import CameraSize


@dataclasses.dataclass(frozen=True)
class SimRobotConfig:
    """Parameters of the node `sim_robot`."""

    urdf_path: str = parameter('', 'Robot description that is simulated and published.')
    joints: list[str] = parameter(
        [f'fr3_joint{i}' for i in range(1, 8)], 'Joints that the trajectory controller drives.'
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
    cameras: list[str] = parameter(['front', 'wrist'], 'Cameras that are drawn and published.')
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
        """Return what the simulated robot needs of this."""
        size = CameraSize(self.image_width, self.image_height)
        return RobotConfig(
            joints=tuple(self.joints),
            cameras=tuple((name, size) for name in self.cameras),
            controller=ControllerConfig(
                self.interpolate_from_desired_state, self.allow_nonzero_velocity_at_trajectory_end
            ),
            max_lag_s=self.max_lag_s,
        )
