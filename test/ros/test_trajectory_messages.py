# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A trajectory goes out with its own numbers, whatever was in the message before."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.core.trajectory import Trajectory
from vla_deploy.ros.conversions import time_ns
from vla_deploy.ros.trajectory_messages import TrajectoryMessage


@st.composite
def trajectories(draw, joints):
    knots = draw(st.integers(1, 6))
    gaps = draw(st.lists(st.integers(1, 3 * 10**9), min_size=knots, max_size=knots))
    rows = st.lists(
        st.lists(st.floats(-1e9, 1e9), min_size=joints, max_size=joints),
        min_size=knots, max_size=knots,
    ).map(np.array)
    return Trajectory.of(10**18 + np.cumsum(np.array(gaps, np.int64)), draw(rows), draw(rows))


@st.composite
def sequences(draw):
    """Names of joints, of any length (what follows them is aligned), and some trajectories."""
    names = draw(st.lists(st.text('abcdé', max_size=9), min_size=1, max_size=4))
    return names, draw(st.lists(trajectories(len(names)), min_size=1, max_size=4))


@given(sequences())
@settings(max_examples=100, deadline=None)
def test_when_message_is_filled_again_expect_every_number_bit_for_bit(given_sequence):
    names, sequence = given_sequence
    message = TrajectoryMessage(names)
    for trajectory in sequence:
        msg = deserialize_message(message.fill(trajectory), JointTrajectory)
        assert (list(msg.joint_names), msg.header.frame_id) == (names, '')
        start = time_ns(msg.header.stamp)
        assert [start + time_ns(p.time_from_start) for p in msg.points] == list(trajectory.times)
        assert [list(p.positions) for p in msg.points] == trajectory.position.tolist()
        assert [list(p.velocities) for p in msg.points] == trajectory.velocity.tolist()
        assert not any(len(p.accelerations) + len(p.effort) for p in msg.points)
