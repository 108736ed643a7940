# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A trajectory goes out with its own numbers, whatever was in the message before."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from trajectory_msgs.msg import JointTrajectory

from vla_deploy.core.trajectory import Trajectory
from vla_deploy.ros.conversions import time_ns
from vla_deploy.ros.trajectory_messages import TrajectoryMessage

NAMES = ('a', 'b')


@st.composite
def trajectories(draw):
    knots = draw(st.integers(1, 6))
    gaps = draw(st.lists(st.integers(1, 3 * 10**9), min_size=knots, max_size=knots))
    numbers = st.floats(-1e9, 1e9)
    rows = st.lists(st.tuples(numbers, numbers), min_size=knots, max_size=knots).map(np.array)
    times = 10**18 + np.cumsum(np.array(gaps, np.int64))
    return Trajectory(times, draw(rows), draw(rows))


@given(st.lists(trajectories(), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_when_message_is_filled_again_expect_every_number_bit_for_bit(sequence):
    message = TrajectoryMessage(NAMES)
    for trajectory in sequence:
        msg = deserialize_message(serialize_message(message.fill(trajectory)), JointTrajectory)
        assert tuple(msg.joint_names) == NAMES
        start = time_ns(msg.header.stamp)
        assert [start + time_ns(p.time_from_start) for p in msg.points] == list(trajectory.times)
        assert [list(p.positions) for p in msg.points] == trajectory.position.tolist()
        assert [list(p.velocities) for p in msg.points] == trajectory.velocity.tolist()
