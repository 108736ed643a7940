# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The judge of the demonstration and of the tests of processes: does it see every excess?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_deploy.core.limits import JointLimit, JointLimits, VelocityEnvelope
from vla_deploy.demo.excess import ExcessCheck
from vla_deploy.ros.conversions import duration_msg

V_MAX, A_MAX, END = 2.0, 10.0, 1.5
CURVE = VelocityEnvelope(8.0, 0.3, -END, END)


def limits(*names: str, curve: VelocityEnvelope | None = None) -> JointLimits:
    return JointLimits.of([JointLimit(name, 'revolute', -END, END, V_MAX, A_MAX, None, 87.0, 'test',
                                      False, curve) for name in names])


def command(names, times_s, positions, velocities) -> JointTrajectory:
    return JointTrajectory(joint_names=list(names), points=[
        JointTrajectoryPoint(positions=list(q), velocities=list(v),
                             time_from_start=duration_msg(t))
        for t, q, v in zip(times_s, positions, velocities, strict=True)])


def judged(positions, velocities, times_s, curve=None):
    """The excess of one joint's motion."""
    check = ExcessCheck(limits('a', curve=curve))
    check.add_command(command('a', times_s, np.reshape(positions, (-1, 1)),
                              np.reshape(velocities, (-1, 1))))
    return check.excess


def densely(q, v, h):
    """Positions, velocities and accelerations of a cubic at 4001 instants, from its power form."""
    slope = (q[1] - q[0]) / h
    a2, a3 = (3 * slope - 2 * v[0] - v[1]) / h, (v[0] + v[1] - 2 * slope) / h**2
    s = np.linspace(0.0, h, 4001)
    return (q[0] + v[0] * s + a2 * s**2 + a3 * s**3, v[0] + 2 * a2 * s + 3 * a3 * s**2,
            2 * a2 + 6 * a3 * s)


ends = st.tuples(st.floats(-1.4, 1.4), st.floats(-1.4, 1.4))
speeds = st.tuples(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
millis = st.integers(10, 1000)


@given(ends, speeds, millis)
def test_when_a_cubic_is_judged_expect_its_extrema_between_the_knots_too(q, v, ms):
    position, velocity, acceleration = densely(q, v, ms * 1e-3)
    excess = judged(q, v, (0.0, ms * 1e-3))
    assert excess.position == pytest.approx(np.abs(position).max() / END, rel=1e-5, abs=1e-9)
    assert excess.velocity == pytest.approx(np.abs(velocity).max() / V_MAX, rel=1e-5, abs=1e-9)
    assert excess.acceleration == pytest.approx(
        np.abs(acceleration).max() / A_MAX, rel=1e-5, abs=1e-6)


@given(st.floats(0.1, 1.0), st.floats(0.1, 3.0), st.floats(-3.0, -0.1), millis)
def test_when_acceleration_is_constant_expect_the_turning_point_to_the_last_digits(q, v, then, ms):
    h = ms * 1e-3
    excess = judged((q, q + 0.5 * (v + then) * h), (v, then), (0.0, h))
    turn = q + 0.5 * v * v * h / (v - then)
    largest = max(turn, -(q + 0.5 * (v + then) * h))
    assert excess.position == pytest.approx(largest / END, rel=1e-12)


@given(ends, speeds, millis)
def test_when_velocity_limits_depend_on_position_expect_motion_above_them_seen(q, v, ms):
    position, velocity, _ = densely(q, v, ms * 1e-3)
    room = np.where(velocity > 0.0, END - position, END + position)
    allowed = np.clip(np.sqrt(CURVE.k * np.maximum(room, 0.0)) - CURVE.c, 0.0, V_MAX)
    above = (np.abs(velocity) - allowed).max() / V_MAX
    excess = judged(q, v, (0.0, ms * 1e-3), CURVE)
    # Looked at in places: a short peak between two of them may be missed, nothing is invented.
    assert excess.velocity - 1.0 <= above + 1e-5
    if above > 0.0:
        assert excess.velocity - 1.0 >= 0.9 * above - 0.02
        assert excess.any or above < 0.03


@pytest.mark.parametrize(
    ('q', 'v', 'curve', 'exceeded'),
    [
        ((0.0, 0.01), (0.0, 0.0), None, ''),
        ((END, END), (0.0, 0.0), None, ''),
        ((END + 1e-5, END), (0.0, 0.0), None, 'position'),
        ((-END, -END - 1e-5), (0.0, 0.0), None, 'position'),
        ((0.0, 0.2), (V_MAX, V_MAX), None, ''),
        ((0.0, 0.2001), (V_MAX, V_MAX), None, 'velocity'),
        ((0.0, 0.0), (0.0, 0.6), None, 'acceleration'),
        ((1.25, 1.35), (1.0, 1.0), None, ''),
        ((1.25, 1.35), (1.0, 1.0), CURVE, 'velocity'),
        ((1.35, 1.25), (-1.0, -1.0), CURVE, ''),
        ((float('nan'), 0.0), (0.0, 0.0), None, 'position'),
    ],
)
def test_when_a_limit_is_exceeded_expect_it_and_no_other_told(q, v, curve, exceeded):
    excess = judged(q, v, (0.0, 0.1), curve)
    assert excess.any == bool(exceeded)
    found = {name for name in ('position', 'velocity', 'acceleration')
             if not getattr(excess, name) <= 1.0 + 1e-6}
    assert exceeded in found if exceeded else not found


def test_when_joints_come_in_another_order_expect_each_held_against_its_own_limits():
    wide = JointLimit('wide', 'revolute', -9.0, 9.0, V_MAX, A_MAX, None, 87.0, 'test', False, None)
    check = ExcessCheck(JointLimits.of([*limits('narrow').joints, wide]))
    check.add_command(command(('wide', 'narrow'), (0.0,), [(8.0, 1.0)], [(0.0, 0.0)]))
    assert not check.excess.any
    check.add_command(command(('narrow', 'wide'), (0.0,), [(8.0, 1.0)], [(0.0, 0.0)]))
    assert check.excess.any


def test_when_the_robot_is_measured_beyond_a_limit_expect_it_told():
    check = ExcessCheck(limits('a'))
    check.add_measurement(JointState(name=['a'], position=[END], velocity=[0.0]))
    assert not check.excess.any
    check.add_measurement(JointState(name=['a'], position=[-END - 0.01], velocity=[0.0]))
    assert check.excess.any
    assert check.excess.measured_position == pytest.approx((END + 0.01) / END)
