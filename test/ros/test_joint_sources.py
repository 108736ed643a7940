# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Joint states of two drivers as one."""

from sensor_msgs.msg import JointState

from vla_deploy.ros.conversions import time_msg, time_ns
from vla_deploy.ros.joint_sources import merged


def state(stamp_ns, names, position, velocity=()):
    msg = JointState(name=names, position=position, velocity=velocity)
    msg.header.stamp = time_msg(stamp_ns)
    return msg


def test_when_two_arms_report_expect_prefixed_names_and_the_older_stamp():
    left = state(2000, ['waist', 'elbow'], [1.0, 2.0], [0.1, 0.2])
    right = state(1000, ['waist'], [3.0], [0.3])
    whole = merged([left, right], ['left/', 'right/'])
    assert list(whole.name) == ['left/waist', 'left/elbow', 'right/waist']
    assert list(whole.position) == [1.0, 2.0, 3.0]
    assert list(whole.velocity) == [0.1, 0.2, 0.3]
    assert time_ns(whole.header.stamp) == 1000
    assert list(left.name) == ['waist', 'elbow']


def test_when_one_arm_says_no_velocities_expect_none():
    whole = merged([state(1, ['a'], [1.0], [0.1]), state(1, ['a'], [1.0])], ['l/', 'r/'])
    assert list(whole.velocity) == []
