# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Bring up a Franka Research 3 under guard.

In simulation, with the policy that comes with the package:
    ros2 launch vla_deploy franka.launch.py sim:=true instruction:='reach the red cube'
In simulation, waiting for a text on the topic `instruction`:
    ros2 launch vla_deploy franka.launch.py sim:=true
On the robot, with your own policy; arming is yours to do (`ros2 service call /guard/arm ...`):
    ros2 launch vla_deploy franka.launch.py bundle:=/path/to/bundle
All arguments:
    ros2 launch vla_deploy franka.launch.py --show-args
"""

from vla_deploy.ros.launch import launch_description


def generate_launch_description():
    return launch_description('franka')
