# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Every field of ExecutionState arrives as it was set, whatever was in the message before."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message

from vla_deploy.core.guard_io import ExecutionState as CoreExecutionState
from vla_deploy.core.guard_io import GuardState
from vla_deploy.ros.conversions import time_ns
from vla_deploy.ros.execution_messages import ExecutionMessage
from vla_deploy_msgs.msg import ExecutionState

NAMES = ('joint', 'a', 'finger_left')
COUNTS = st.integers(0, 2**64 - 1)
NUMBERS = st.lists(st.floats(allow_nan=False), min_size=3, max_size=3).map(np.array)


@st.composite
def executions(draw):
    commanded = draw(st.booleans())
    return CoreExecutionState(
        stamp_ns=draw(st.integers(0, 2**31 * 10**9 - 1)),
        session_id=draw(st.sampled_from(('', 'one', 'session-2'))),
        seq=draw(COUNTS), has_plan=draw(st.booleans()),
        next_index=draw(st.integers(0, 2**32 - 1)),
        consumed_total=draw(COUNTS), chunks_refused=draw(COUNTS),
        commanded_position=draw(NUMBERS) if commanded else None,
        commanded_velocity=draw(NUMBERS) if commanded else None,
    )


@given(st.lists(st.tuples(executions(), st.sampled_from(GuardState)), min_size=1, max_size=5))
def test_when_message_is_filled_again_expect_every_field(sequence):
    message = ExecutionMessage(NAMES)
    for execution, state in sequence:
        msg = deserialize_message(message.fill(execution, state), ExecutionState)
        assert (time_ns(msg.header.stamp), msg.header.frame_id) == (execution.stamp_ns, '')
        assert (msg.guard_state, tuple(msg.joint_names)) == (state, NAMES)
        for name in ('session_id', 'seq', 'has_plan', 'next_index', 'consumed_total',
                     'chunks_refused'):
            assert getattr(msg, name) == getattr(execution, name)
        for name in ('commanded_position', 'commanded_velocity'):
            expected = getattr(execution, name)
            assert list(getattr(msg, name)) == ([] if expected is None else expected.tolist())


def test_when_the_definition_of_the_message_changes_expect_this_to_say_so():
    assert ExecutionState.get_fields_and_field_types() == {
        'header': 'std_msgs/Header', 'session_id': 'string', 'seq': 'uint64',
        'has_plan': 'boolean', 'next_index': 'uint32', 'consumed_total': 'uint64',
        'chunks_refused': 'uint64', 'guard_state': 'uint8', 'joint_names': 'sequence<string>',
        'commanded_position': 'sequence<double>', 'commanded_velocity': 'sequence<double>',
    }
