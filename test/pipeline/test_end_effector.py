# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Actions of an end effector as joint positions, held against MuJoCo's kinematics."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.inverse_kinematics import (
    pose_error,
    rotation_from_vector,
    rotation_vector,
    solve,
)
from vla_deploy.core.kinematics import Chain, KinematicsError, rotation_from_rpy
from vla_deploy.core.urdf import parse_urdf
from vla_deploy.pipeline.end_effector import EndEffector, EndEffectorError, EndEffectorRules

mujoco = pytest.importorskip('mujoco')
TEXT = (Path(__file__).parents[2] / 'urdf' / 'fr3.urdf').read_text()
URDF = parse_urdf(TEXT)
LINK = 'fr3_hand_tcp'
ARM = tuple(f'fr3_joint{i}' for i in range(1, 8))
STATE = ('fr3_finger_joint1', *reversed(ARM))
HOME = np.array([0.0, -0.6, 0.0, -2.2, 0.0, 1.7, 0.785])
LOWER = np.array([URDF.joints[name].lower for name in ARM])
UPPER = np.array([URDF.joints[name].upper for name in ARM])
RULES = EndEffectorRules('absolute', 'rotation_vector', 0.005, 0.02)
seeds = st.integers(0, 2**32 - 1)


class Truth:
    """Where MuJoCo puts the hand."""

    def __init__(self) -> None:
        end = TEXT.index('>', TEXT.index('<robot ')) + 1
        options = '<mujoco><compiler fusestatic="false" discardvisual="false"/></mujoco>'
        self.model = mujoco.MjModel.from_xml_string(TEXT[:end] + options + TEXT[end:])
        self.data = mujoco.MjData(self.model)

    def __call__(self, q):
        for name, value in zip(ARM, q, strict=True):
            self.data.joint(name).qpos[:] = value
        mujoco.mj_kinematics(self.model, self.data)
        body = self.data.body(LINK)
        pose = np.eye(4)
        pose[:3, 3], pose[:3, :3] = body.xpos, body.xmat.reshape(3, 3)
        return pose


TRUTH = Truth()


def effector(**changes):
    return EndEffector(URDF, LINK, ('fr3_finger_joint1',), STATE,
                       dataclasses.replace(RULES, **changes))


def state(q=HOME):
    return np.array([0.02, *q[::-1]])


def path(seed=1, steps=12):
    """Joint positions [steps, 7] of a smooth motion, and MuJoCo's poses along it."""
    rng = np.random.default_rng(seed)
    joints = HOME + np.linspace(0.0, 1.0, steps)[:, None] * rng.uniform(-0.3, 0.3, 7)
    return joints, [TRUTH(q) for q in joints]


def absolute(poses, rotation):
    turns = [rotation(pose[:3, :3]) for pose in poses]
    return np.array([[*p[:3, 3], *t, 0.03] for p, t in zip(poses, turns, strict=True)])


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_when_a_pose_is_in_reach_expect_mujoco_to_find_the_hand_there(seed):
    rng = np.random.default_rng(seed)
    q = LOWER + rng.uniform(0.1, 0.9, 7) * (UPPER - LOWER)
    wanted = TRUTH(q)
    start = np.clip(q + rng.uniform(-0.1, 0.1, 7), LOWER, UPPER)  # as far as samples lie apart
    found = solve(Chain(URDF, LINK), wanted, start, LOWER, UPPER)
    there = TRUTH(found.position)
    assert ((found.position >= LOWER) & (found.position <= UPPER)).all()
    assert np.linalg.norm(there[:3, 3] - wanted[:3, 3]) == pytest.approx(
        found.residual_m, abs=1e-9)
    assert found.residual_m < 1e-4
    assert found.residual_rad < 1e-3


def test_when_a_pose_is_out_of_reach_expect_the_residual_that_mujoco_measures():
    wanted = TRUTH(HOME)
    wanted[:3, 3] += [2.0, 0.0, 0.0]
    found = solve(Chain(URDF, LINK), wanted, HOME, LOWER, UPPER)
    there = TRUTH(found.position)
    assert found.residual_m > 0.5
    assert np.linalg.norm(there[:3, 3] - wanted[:3, 3]) == pytest.approx(found.residual_m)
    assert ((found.position >= LOWER) & (found.position <= UPPER)).all()


def test_when_poses_are_absolute_expect_the_hand_to_follow_them_and_the_gripper_passed_on():
    made = effector()
    assert made.joint_names == (*ARM, 'fr3_finger_joint1')
    assert made.action_dim == 7
    _, poses = path()
    positions = made.to_joints(absolute(poses, rotation_vector), state())
    assert positions.shape == (12, 8)
    assert (positions[:, 7] == 0.03).all()
    for q, pose in zip(positions, poses, strict=True):
        assert np.abs(pose_error(TRUTH(q[:7]), pose)).max() < 1e-5
    assert np.abs(np.diff(positions[:, :7], axis=0)).max() < 0.2  # one branch throughout


@pytest.mark.parametrize('semantics', ['from_observation', 'from_previous'])
def test_when_actions_are_changes_expect_the_same_joints_as_of_the_poses(semantics):
    _, poses = path(2)
    expected = effector().to_joints(absolute(poses, rotation_vector), state())
    changes, reference = [], TRUTH(HOME)
    for pose in poses:
        turn = pose[:3, :3] @ reference[:3, :3].T
        changes.append([*(pose[:3, 3] - reference[:3, 3]), *rotation_vector(turn), 0.03])
        if semantics == 'from_previous':
            reference = pose
    positions = effector(semantics=semantics).to_joints(np.array(changes), state())
    np.testing.assert_allclose(positions, expected, atol=1e-5)


def test_when_rotations_are_roll_pitch_yaw_expect_them_read_so():
    target = np.array([[*TRUTH(HOME)[:3, 3], 3.0, 0.1, -0.2, 0.0]])
    q = effector(rotation='rpy').to_joints(target, state())[0, :7]
    np.testing.assert_allclose(TRUTH(q)[:3, :3], rotation_from_rpy(target[0, 3:6]), atol=1e-5)


@pytest.mark.parametrize('bound', ['max_residual_m', 'max_residual_rad'])
def test_when_more_is_left_of_a_pose_than_allowed_expect_the_sample_named(bound):
    far = TRUTH(HOME)
    far[:3, 3] += [0.5, 0.3, 1.0]
    actions = absolute([TRUTH(HOME), far], rotation_vector)
    chain = Chain(URDF, LINK)
    found = solve(chain, far, solve(chain, TRUTH(HOME), HOME, LOWER, UPPER).position, LOWER, UPPER)
    left = {'max_residual_m': found.residual_m, 'max_residual_rad': found.residual_rad}
    assert min(left.values()) > 0.01
    loose = {name: 1.01 * value for name, value in left.items()}
    assert np.isfinite(effector(**loose).to_joints(actions, state())).all()
    with pytest.raises(EndEffectorError, match=f'sample 1 asks for a pose that {LINK} misses'):
        effector(**{**loose, bound: 0.99 * left[bound]}).to_joints(actions, state())


def test_when_actions_are_not_finite_expect_positions_that_are_not():
    actions = absolute(path()[1], rotation_vector)
    actions[3, 1] = np.nan
    assert np.isnan(effector().to_joints(actions, state())).all()


def test_when_link_or_joints_do_not_fit_expect_them_named():
    with pytest.raises(KinematicsError, match="no link 'claw'"):
        EndEffector(URDF, 'claw', (), STATE, RULES)
    with pytest.raises(ValueError, match="moved by 'fr3_joint1', which is not observed"):
        EndEffector(URDF, LINK, (), ARM[1:], RULES)
    with pytest.raises(ValueError, match="'fr3_joint2' moves 'fr3_hand_tcp' and cannot"):
        EndEffector(URDF, LINK, ('fr3_joint2',), STATE, RULES)


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_when_a_rotation_becomes_a_vector_and_back_expect_the_same(seed):
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    angle = rng.choice([0.0, 1e-9, 1.0, np.pi - 1e-9, np.pi])
    turn = rotation_from_vector(axis / np.linalg.norm(axis) * angle)
    np.testing.assert_allclose(rotation_from_vector(rotation_vector(turn)), turn, atol=1e-6)
