# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Each robot's bring-up, started: the guard takes control of the simulated robot and moves it."""

import signal
import sys

import numpy as np
import pytest
from graph_harness import KEEP_ALL_RELIABLE
from inference_waits import PATIENT
from robot_figures import ROOT, limits, parameters, read
from std_msgs.msg import Float64MultiArray

from vla_deploy.bringup import BringUpOptions, bring_up, robots
from vla_deploy.core.contract import Contract
from vla_deploy.demo.excess import ExcessCheck
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import JointMap
from vla_deploy_msgs.msg import ActionChunk

STEPS = 9  # of 0.1 s
# A process that had to wait for a processor is no reason for a fault.
PATIENCE = {
    'sim_robot': ('-p', 'image_rate_hz:=2.0'),
    'guard': (
        '-p', 'joint_state_timeout_s:=1.0', '-p', 'joint_state_steady_timeout_s:=3.0',
        '-p', 'tick_gap_s:=1.0',
    ),
    'inference': tuple(
        word for name, value in PATIENT.items() for word in ('-p', f'{name}:={value}')
    ),
}  # fmt: skip
# The FR3 is brought up with its policy by the tests of the whole graph.
ARMS = [robot for robot in robots() if robot not in ('franka', 'quadcopter')]


def smooth(start, target):
    """Return samples [steps, joints] from rest to rest, all joints together."""
    part = np.linspace(0.0, 1.0, STEPS)[:, None]
    return start + (target - start) * part**3 * (10 - 15 * part + 6 * part**2)


@pytest.mark.parametrize('robot', ARMS)
def test_when_a_robot_is_brought_up_expect_the_guard_in_control_and_every_joint_moved(graph, robot):
    for process in bring_up(robot, BringUpOptions(sim=True, inference=False), None):
        graph.environment.update(process.environment)
        graph.run(*process.command, *PATIENCE[process.name])
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to take control')
    graph.wait(lambda: graph.joint_states, 'a joint state')
    bounds = limits(robot)
    joint_map = JointMap(bounds.names)

    def measured():
        return joint_map.positions(graph.joint_states[-1])

    start = measured()
    # Some way toward the middle of each range, at a third of the acceleration that is allowed.
    way = np.minimum(bounds.acceleration * (0.1 * STEPS) ** 2 / 5.77 / 3, 0.15)
    way = np.minimum(way, (bounds.upper - bounds.lower) / 6)
    target = start + np.where(start > (bounds.lower + bounds.upper) / 2, -way, way)
    graph.publish_chunk(smooth(start, target), joint_names=list(bounds.names))
    graph.wait(lambda: np.allclose(measured(), target, atol=2e-3), 'every joint to arrive')
    check = ExcessCheck(bounds)
    for trajectory in graph.trajectories:
        assert tuple(trajectory.joint_names) == bounds.names
        check.add_command(trajectory)
    for state in graph.joint_states:
        check.add_measurement(state)
    assert not check.excess.any, check.excess
    assert [violation.rule for violation in graph.violations] == []


def test_when_one_policy_drives_both_arms_of_aloha_expect_all_joints_there_within_their_limits(
    graph, plain_contract, plain_bundle
):
    """The policy asks 0.03 rad, or m, of every joint, however far that is: the guard goes there."""
    bounds = limits('aloha')
    joints = list(bounds.names)
    mapping = plain_contract.to_mapping()
    fingers = [name.endswith('finger') for name in joints]
    for part in ('state', 'action'):
        mapping[part].update(
            joints=joints, dim=len(joints), padded_dim=len(joints),
            units=['m' if finger else 'rad' for finger in fingers],
        )  # fmt: skip
    mapping['cameras'] = [
        {'name': name, 'key': f'observation.images.{name}', 'height': 480, 'width': 640}
        for name in parameters('aloha', 'sim_robot.yaml')['cameras']
    ]
    bundle = plain_bundle(Contract.from_mapping(mapping))
    options = BringUpOptions(sim=True, backend='stub', instruction='lift both')
    for process in bring_up('aloha', options, bundle):
        graph.environment.update(process.environment)
        more = {'inference': ('-p', 'stub_value:=0.03'), 'guard': ('-p', 'start_jump:=2.0')}
        graph.run(*process.command, *PATIENCE[process.name], *more.get(process.name, ()))
    joint_map = JointMap(bounds.names)
    graph.wait(
        lambda: graph.joint_states
        and np.allclose(joint_map.positions(graph.joint_states[-1]), 0.03, atol=2e-3),
        'every joint of both arms to arrive', timeout_s=60.0,
    )  # fmt: skip
    check = ExcessCheck(bounds)
    for trajectory in graph.trajectories:
        assert tuple(trajectory.joint_names) == bounds.names
        check.add_command(trajectory)
    assert not check.excess.any, check.excess
    assert {tuple(chunk.joint_names) for chunk in graph.chunks} == {bounds.names}


def test_when_the_quadcopter_hears_velocities_expect_it_to_move_and_to_stop_when_they_end(graph):
    config = read('quadcopter', 'bringup.yaml')
    graph.run(
        sys.executable, '-m', 'vla_deploy.nodes.sim_robot', '--ros-args',
        '--params-file', str(ROOT / 'config' / 'quadcopter' / 'sim_robot.yaml'),
        '-p', f'urdf_path:={ROOT / config["urdf"]}', '-p', 'cameras:=[front]',
    )  # fmt: skip
    joint_map = JointMap(limits('quadcopter').names)
    graph.wait(lambda: graph.joint_states, 'a joint state')

    def newest(values):
        return values(graph.joint_states[-1])

    with graph.publisher(Float64MultiArray, 'velocity_commands', qos.COMMAND) as commands:
        commands.publish(Float64MultiArray(data=[0.0, 0.3, 0.0, 0.2]))
        graph.wait(lambda: newest(joint_map.positions)[1] > 0.05, 'motion along y')
        # Nothing more is sent: velocity_timeout_s ends the motion.
        graph.wait(
            lambda: np.abs(newest(joint_map.velocities)).max() < 1e-3, 'it to stand still'
        )
        commands.publish(Float64MultiArray(data=[0.3, 0.0]))
        graph.wait(
            lambda: 'velocities refused: 2 velocities for 4 joints' in graph.processes[0].output(),
            'the refusal to be logged',
        )
    x, y, z, yaw = newest(joint_map.positions)
    assert (x, z) == pytest.approx((0.0, 1.0), abs=1e-3)
    assert y == pytest.approx(0.15, abs=0.02)
    assert yaw == pytest.approx(0.1, abs=0.02)


def test_when_the_quadcopter_is_brought_up_expect_plans_flown_and_zeros_said(graph):
    velocities = graph.listen(Float64MultiArray, 'velocity_commands', KEEP_ALL_RELIABLE)
    for process in bring_up('quadcopter', BringUpOptions(sim=True, inference=False), None):
        graph.environment.update(process.environment)
        graph.run(*process.command, *PATIENCE[process.name])
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to take control')
    graph.wait(lambda: len(velocities) > 5, 'commands while it holds')
    assert not np.array([message.data for message in velocities]).any()
    bounds = limits('quadcopter')
    joint_map = JointMap(bounds.names)

    def fly(velocity, steps):
        graph.publish_chunk(
            np.tile(velocity, (steps, 1)), joint_names=list(bounds.names),
            control_mode=ActionChunk.CONTROL_MODE_VELOCITY,
        )  # fmt: skip

    fly([0.0, 0.4, 0.2, -0.4], 9)
    graph.wait(lambda: graph.guard.chunks_accepted == 1, 'the plan to be accepted')
    graph.wait(lambda: graph.guard.reason == 'plan ended', 'the plan to end')
    graph.wait(lambda: not any(velocities[-1].data), 'zeros')
    assert [violation.rule for violation in graph.violations] == []
    position = joint_map.positions(graph.joint_states[-1])
    assert position[1] > 0.2
    assert position[3] < -0.2
    fly([100.0] * 4, 20)  # as a policy that knows nothing would
    graph.wait(lambda: graph.guard.chunks_clamped == 1, 'it to be clamped')
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'it to end')
    graph.wait(lambda: not any(velocities[-1].data), 'zeros')
    sent = np.array([message.data for message in velocities])
    assert (np.abs(sent) <= bounds.velocity).all()
    assert (np.abs(np.diff(sent, axis=0)) <= bounds.acceleration * 0.02).all()
    measured = np.array([joint_map.positions(state) for state in graph.joint_states])
    assert ((measured >= bounds.lower) & (measured <= bounds.upper)).all()


def test_when_the_guard_of_a_moving_quadcopter_is_interrupted_expect_it_braked_to_zeros_said(graph):
    velocities = graph.listen(Float64MultiArray, 'velocity_commands', KEEP_ALL_RELIABLE)
    started = {}
    for process in bring_up('quadcopter', BringUpOptions(sim=True, inference=False), None):
        graph.environment.update(process.environment)
        started[process.name] = graph.run(*process.command, *PATIENCE[process.name])
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to take control')
    bounds = limits('quadcopter')
    graph.publish_chunk(
        np.tile([0.6, 0.0, 0.0, 0.0], (40, 1)), joint_names=list(bounds.names),
        control_mode=ActionChunk.CONTROL_MODE_VELOCITY,
    )  # fmt: skip
    graph.wait(lambda: velocities and velocities[-1].data[0] > 0.55, 'it to fly')
    started['guard'].send(signal.SIGINT)
    assert graph.wait_for_exit(started['guard']) == 0
    graph.wait(lambda: not any(velocities[-1].data), 'zeros')
    speeds = np.array([message.data[0] for message in velocities])
    braking = speeds[np.flatnonzero(speeds > 0.55)[-1]:]
    assert len(braking) > 10
    assert (np.diff(braking) <= 1e-9).all()
    period_s = parameters('quadcopter', 'guard.yaml')['period_s']
    assert np.abs(np.diff(speeds)).max() <= bounds.acceleration[0] * period_s * (1 + 1e-6)
