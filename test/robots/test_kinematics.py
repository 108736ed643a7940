# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics against MuJoCo and against published chains, for every description we have."""

from pathlib import Path

import numpy as np
import pytest

from vla_deploy.core.kinematics import Chain, KinematicsError, links, rotation_from_rpy
from vla_deploy.core.urdf import MOVING_TYPES, UrdfError, parse_urdf

mujoco = pytest.importorskip('mujoco')
URDFS = sorted((Path(__file__).parents[2] / 'urdf').glob('*.urdf'), key=lambda p: p.stem)
BY_NAME = {path.stem: path for path in URDFS}
OPTIONS = '<mujoco><compiler fusestatic="false" discardvisual="false"/></mujoco>'


def urdf_of(name):
    return parse_urdf(BY_NAME[name].read_text())


def mujoco_of(name):
    text = BY_NAME[name].read_text()
    end = text.index('>', text.index('<robot ')) + 1
    model = mujoco.MjModel.from_xml_string(text[:end] + OPTIONS + text[end:])
    return model, mujoco.MjData(model)


def random_position(urdf, rng):
    """Return one position of every joint that is commanded or mimics, by name."""
    position = {}
    for joint in urdf.joints.values():
        if joint.kind in MOVING_TYPES and joint.mimics is None:
            position[joint.name] = rng.uniform(
                -4.0 if joint.lower is None else joint.lower,
                4.0 if joint.upper is None else joint.upper,
            )
    for joint in urdf.joints.values():
        if joint.mimics is not None:
            position[joint.name] = (
                joint.mimic_multiplier * position[joint.mimics] + joint.mimic_offset
            )
    return position


@pytest.mark.parametrize('name', BY_NAME)
def test_when_joints_are_anywhere_expect_every_link_where_mujoco_puts_it(name):
    urdf, (model, data) = urdf_of(name), mujoco_of(name)
    chains = {link: Chain(urdf, link) for link in links(urdf)}
    rng = np.random.default_rng(3)
    for _ in range(20):
        position = random_position(urdf, rng)
        for joint, value in position.items():
            data.joint(joint).qpos[:] = value
        mujoco.mj_kinematics(model, data)
        for link, chain in chains.items():
            pose = chain.pose([position[joint] for joint in chain.joint_names])
            body = data.body(link)
            assert pose[:3, 3] == pytest.approx(body.xpos, abs=1e-9), link
            assert pose[:3, :3] == pytest.approx(body.xmat.reshape(3, 3), abs=1e-9), link


@pytest.mark.parametrize('name', BY_NAME)
def test_when_the_jacobian_is_asked_for_expect_that_of_mujoco(name):
    urdf, (model, data) = urdf_of(name), mujoco_of(name)
    masters = {
        joint.name: (joint.mimics or joint.name, joint.mimic_multiplier)
        for joint in urdf.joints.values()
        if joint.kind in MOVING_TYPES
    }
    rng = np.random.default_rng(4)
    position = random_position(urdf, rng)
    for joint, value in position.items():
        data.joint(joint).qpos[:] = value
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    for link in links(urdf):
        chain = Chain(urdf, link)
        theirs = np.zeros((6, model.nv))
        mujoco.mj_jacBody(model, data, theirs[:3], theirs[3:], model.body(link).id)
        expected = np.zeros((6, len(chain.joint_names)))
        for joint, (master, multiplier) in masters.items():
            if master in chain.joint_names:
                column = chain.joint_names.index(master)
                expected[:, column] += multiplier * theirs[:, model.joint(joint).dofadr[0]]
        ours = chain.jacobian([position[joint] for joint in chain.joint_names])
        assert ours == pytest.approx(expected, abs=1e-9), link


def test_when_many_positions_are_given_expect_as_many_poses():
    chain = Chain(urdf_of('fr3'), 'fr3_hand_tcp')
    positions = np.random.default_rng(5).uniform(-1.0, 1.0, (4, 3, 7))
    poses, jacobians = chain.pose(positions), chain.jacobian(positions)
    assert poses.shape == (4, 3, 4, 4)
    assert jacobians.shape == (4, 3, 6, 7)
    assert poses[2, 1] == pytest.approx(chain.pose(positions[2, 1]), abs=1e-12)
    assert jacobians[2, 1] == pytest.approx(chain.jacobian(positions[2, 1]), abs=1e-12)


def test_when_the_base_is_another_link_expect_the_pose_in_its_frame():
    urdf = urdf_of('ur5')
    whole, lower = Chain(urdf, 'tool0'), Chain(urdf, 'forearm_link')
    upper = Chain(urdf, 'tool0', base='forearm_link')
    q = np.linspace(-0.5, 0.5, 6)
    assert upper.joint_names == whole.joint_names[3:]
    assert lower.pose(q[:3]) @ upper.pose(q[3:]) == pytest.approx(whole.pose(q), abs=1e-12)


# d1, a2, a3, d4, d5, d6 in m, as Universal Robots publishes them for standard DH frames.
UR_DH = {
    'ur3': (0.1519, -0.24365, -0.21325, 0.11235, 0.08535, 0.0819),
    'ur3e': (0.15185, -0.24355, -0.2132, 0.13105, 0.08535, 0.0921),
    'ur5': (0.089159, -0.425, -0.39225, 0.10915, 0.09465, 0.0823),
}


@pytest.mark.parametrize('name', UR_DH)
def test_when_an_arm_of_universal_robots_moves_expect_the_published_chain(name):
    d1, a2, a3, d4, d5, d6 = UR_DH[name]
    table = (
        (d1, 0.0, np.pi / 2), (0.0, a2, 0.0), (0.0, a3, 0.0),
        (d4, 0.0, np.pi / 2), (d5, 0.0, -np.pi / 2), (d6, 0.0, 0.0),
    )  # fmt: skip
    chain = Chain(urdf_of(name), 'tool0')
    q = np.random.default_rng(6).uniform(-3.0, 3.0, 6)
    expected = np.diag((-1.0, -1.0, 1.0, 1.0))  # base_link is the maker's base turned half round
    for theta, (d, a, alpha) in zip(q, table, strict=True):
        about_z, about_x = np.eye(4), np.eye(4)
        about_z[:3, :3] = rotation_from_rpy((0.0, 0.0, theta))
        about_z[2, 3] = d
        about_x[:3, :3] = rotation_from_rpy((alpha, 0.0, 0.0))
        about_x[0, 3] = a
        expected = expected @ about_z @ about_x
    assert chain.pose(q) == pytest.approx(expected, abs=1e-9)


def test_when_the_viperx_is_at_zero_expect_its_published_home():
    pose = Chain(urdf_of('vx300s'), 'ee_gripper_link').pose(np.zeros(6))
    assert pose[:3, 3] == pytest.approx((0.536494, 0.0, 0.42705), abs=1e-9)
    assert pose[:3, :3] == pytest.approx(np.eye(3), abs=1e-12)


def test_when_the_so101_is_at_zero_expect_its_published_reach():
    pose = Chain(urdf_of('so101'), 'gripper_frame_link').pose(np.zeros(5))
    assert pose[:3, 3] == pytest.approx((0.3914, 0.0, 0.2265), abs=1e-4)


@pytest.mark.parametrize('side', ['left', 'right'])
def test_when_aloha_has_two_arms_expect_each_to_be_a_viperx(side):
    one = Chain(urdf_of('vx300s'), 'ee_gripper_link')
    arm = Chain(
        urdf_of('aloha'),
        f'follower_{side}/ee_gripper_link',
        base=f'follower_{side}/base_link',
    )
    assert arm.joint_names == tuple(f'follower_{side}/{name}' for name in one.joint_names)
    q = np.linspace(-1.0, 1.0, 6)
    assert arm.pose(q) == pytest.approx(one.pose(q), abs=1e-12)


def robot(*joints):
    return parse_urdf(f'<robot name="r">{"".join(joints)}</robot>')


def joint(name, parent, child, kind='revolute', inner=''):
    limit = '<limit lower="-1" upper="1" velocity="1" effort="1"/>'
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'{limit}{inner}</joint>'
    )


def test_when_a_joint_mimics_one_that_mimics_expect_both_factors():
    urdf = robot(
        joint('a', 'base', 'one', inner='<axis xyz="0 0 1"/>'),
        joint('b', 'one', 'two', inner='<axis xyz="0 0 1"/><mimic joint="a" multiplier="2" '
              'offset="0.1"/>'),
        joint('c', 'two', 'three', inner='<axis xyz="0 0 2"/><mimic joint="b" multiplier="-1" '
              'offset="0.3"/>'),
    )  # fmt: skip
    chain = Chain(urdf, 'three')
    assert chain.joint_names == ('a',)
    q = 0.2  # b = 2 q + 0.1, c = -b + 0.3, so that the turn is q + 0.3
    assert chain.pose([q])[:3, :3] == pytest.approx(rotation_from_rpy((0, 0, q + 0.3)), abs=1e-12)
    assert chain.jacobian([q])[5, 0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ('joints', 'tip', 'base', 'words'),
    [
        ([joint('a', 'base', 'arm')], 'hand', '', "no link 'hand'"),
        ([joint('a', 'base', 'arm')], 'base', 'arm', "'base' is not below link 'arm'"),
        ([joint('a', 'base', 'arm'), joint('b', 'other', 'arm')], 'arm', '', 'child of two joints'),
        ([joint('a', 'base', 'arm'), joint('b', 'x', 'y')], 'arm', '', '2 root links, not one'),
        ([joint('a', 'base', 'arm'), joint('b', 'y', 'x'), joint('c', 'x', 'y')], 'x', '',
         "'x' is not below"),
        ([joint('a', 'base', 'arm', kind='floating')], 'arm', '', "'a' is floating"),
        (['<joint name="a" type="fixed"/>'], 'arm', '', "'a' names no parent"),
        ([joint('a', 'base', 'arm', inner='<mimic joint="a"/>')], 'arm', '', 'mimic each other'),
        ([joint('a', 'base', 'arm', kind='fixed'),
          joint('b', 'arm', 'hand', inner='<mimic joint="a"/>')], 'hand', '',
         "'b' mimics 'a', which is fixed"),
    ],
)  # fmt: skip
def test_when_a_chain_cannot_be_followed_expect_the_link_or_joint_named(joints, tip, base, words):
    with pytest.raises(KinematicsError) as error:
        Chain(robot(*joints), tip, base)
    assert words in str(error.value)


@pytest.mark.parametrize('position', [0.0, np.zeros(6), np.zeros((7, 2))])
def test_when_positions_are_of_another_number_expect_both_numbers_named(position):
    chain = Chain(urdf_of('fr3'), 'fr3_hand_tcp')
    for ask in (chain.pose, chain.jacobian):
        with pytest.raises(KinematicsError, match=r'moved by 7 joints .* positions have shape'):
            ask(position)


@pytest.mark.parametrize(
    ('inner', 'words'),
    [
        ('<origin xyz="0 0"/>', "origin xyz is '0 0', not three numbers"),
        ('<origin rpy="0 0 up"/>', "origin rpy is 'up', not a number"),
        ('<origin xyz="0 0 inf"/>', "origin xyz is 'inf', not finite"),
        ('<axis xyz="0 0 0"/>', 'axis has no length'),
        ('<axis xyz="0 0 1 0"/>', "axis xyz is '0 0 1 0', not three numbers"),
        ('<mimic joint="a" multiplier="two"/>', "multiplier is 'two', not a number"),
    ],
)
def test_when_a_frame_is_written_wrongly_expect_the_joint_named(inner, words):
    with pytest.raises(UrdfError) as error:
        robot(joint('a', 'base', 'arm', inner=inner))
    assert "joint 'a'" in str(error.value)
    assert words in str(error.value)
