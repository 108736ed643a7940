# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Joint states of two drivers as one, and of several on one topic."""

from sensor_msgs.msg import JointState

from vla_deploy.ros.conversions import time_msg, time_ns
from vla_deploy.ros.guard_inputs import GuardInputs
from vla_deploy.ros.joint_sources import JointSources, merged


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


class Topics:
    """Takes subscriptions as a node does, and gives messages to them."""

    def __init__(self):
        self.callbacks = {}

    def create_subscription(self, _kind, topic, callback, _profile):
        self.callbacks[topic] = callback

    def say(self, topic, msg):
        self.callbacks[topic](msg)


def test_when_one_driver_falls_silent_expect_nothing_passed_on_whatever_its_last_stamp_was():
    node, heard = Topics(), []
    JointSources(node, ['left', 'right'], ['l/', 'r/'], heard.append)
    node.say('left', state(100, ['a'], [1.0]))
    assert heard == []
    node.say('right', state(9000, ['a'], [2.0]))  # its clock is ahead
    for stamp in range(101, 120):
        node.say('left', state(stamp, ['a'], [3.0]))
    assert [list(whole.position) for whole in heard] == [[1.0, 2.0]]
    node.say('right', state(9001, ['a'], [4.0]))
    assert [list(whole.position) for whole in heard] == [[1.0, 2.0], [3.0, 4.0]]


def test_when_a_gripper_speaks_on_the_arm_s_topic_expect_the_arm_s_state_kept():
    inputs = GuardInputs(['a', 'b'])
    inputs.add_joint_state(state(1, ['finger'], [0.1]))
    inputs.add_joint_state(state(2, ['a', 'b', 'c'], [1.0, 2.0, 3.0]))
    inputs.add_joint_state(state(3, ['finger'], [0.2]))
    assert inputs.take().joint_state.names == ('a', 'b', 'c')
    inputs.add_joint_state(state(4, ['a', 'b'], [1.0, 2.0]))
    inputs.add_joint_state(state(5, ['b', 'a'], [2.5, 1.5]))
    assert inputs.take().joint_state.stamp_ns == 5
