# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Bring up a Universal Robots UR3e under guard.

Its acceleration limits are placeholders: on the robot the guard does not become active, and the
bring-up ends, until you have put figures of your own into config/ur3e/joint_limits.yaml, or give
accept_placeholder_limits:=true.

In simulation, without a policy (chunks from elsewhere, or none):
    ros2 launch vla_deploy ur3e.launch.py sim:=true inference:=false
In simulation, with your own policy:
    ros2 launch vla_deploy ur3e.launch.py sim:=true bundle:=/path/to/bundle \\
        instruction:='pick up the red cube'
On the robot, with your own policy; arming is yours to do (`ros2 service call /guard/arm ...`):
    ros2 launch vla_deploy ur3e.launch.py bundle:=/path/to/bundle
All arguments:
    ros2 launch vla_deploy ur3e.launch.py --show-args
"""

from vla_deploy.ros.launch import launch_description


def generate_launch_description():
    return launch_description('ur3e')
