# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Bring up ALOHA (two ViperX 300 S) under guard.

Its velocity and acceleration limits are placeholders, accepted in simulation only. On the robot it
needs a sourced workspace with interbotix_xs_msgs.

In simulation, without a policy (chunks from elsewhere, or none):
    ros2 launch vla_deploy aloha.launch.py sim:=true inference:=false
In simulation, with your own policy:
    ros2 launch vla_deploy aloha.launch.py sim:=true bundle:=/path/to/bundle \\
        instruction:='put the red cube into the left hand'
On the robot, with your own policy; arming is yours to do (`ros2 service call /guard/arm ...`):
    ros2 launch vla_deploy aloha.launch.py bundle:=/path/to/bundle
All arguments:
    ros2 launch vla_deploy aloha.launch.py --show-args
"""

from vla_deploy.ros.launch import launch_description


def generate_launch_description():
    return launch_description('aloha')
