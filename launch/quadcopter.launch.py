# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Bring up a quadcopter, commanded in velocity, under guard.

All its limits are placeholders, accepted in simulation only.

In simulation, without a policy (chunks from elsewhere, or none):
    ros2 launch vla_deploy quadcopter.launch.py sim:=true inference:=false
In simulation, with your own policy:
    ros2 launch vla_deploy quadcopter.launch.py sim:=true bundle:=/path/to/bundle \\
        instruction:='fly to the red cube'
On the robot, with your own policy; arming is yours to do (`ros2 service call /guard/arm ...`):
    ros2 launch vla_deploy quadcopter.launch.py bundle:=/path/to/bundle
All arguments:
    ros2 launch vla_deploy quadcopter.launch.py --show-args
"""

from vla_deploy.ros.launch import launch_description


def generate_launch_description():
    return launch_description('quadcopter')
