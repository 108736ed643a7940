# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The FR3 description: kinematics against a hand-written chain, limits against public figures."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.sim.scene import Scene

# Craig's convention: rotate alpha about x, move a along x, rotate theta about z, move d along z.
CHAIN = (  # alpha, a, d
    (0.0, 0.0, 0.333),
    (-np.pi / 2, 0.0, 0.0),
    (np.pi / 2, 0.0, 0.316),
    (np.pi / 2, 0.0825, 0.0),
    (-np.pi / 2, -0.0825, 0.384),
    (np.pi / 2, 0.0, 0.0),
    (np.pi / 2, 0.088, 0.0),
)
LOWER = (-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159)
UPPER = (2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159)
VELOCITY = (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26)
EFFORT = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)
ARM = tuple(f'fr3_joint{i}' for i in range(1, 8))


def link(alpha, a, theta, d):
    ca, sa, ct, st_ = np.cos(alpha), np.sin(alpha), np.cos(theta), np.sin(theta)
    return np.array(
        [
            [ct, -st_, 0.0, a],
            [st_ * ca, ct * ca, -sa, -sa * d],
            [st_ * sa, ct * sa, ca, ca * d],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def tool_pose(position):
    pose = np.eye(4)
    for (alpha, a, d), theta in zip(CHAIN, position, strict=True):
        pose = pose @ link(alpha, a, theta, d)
    return pose @ link(0.0, 0.0, -np.pi / 4, 0.107 + 0.1034)


@pytest.fixture(scope='module')
def fr3(urdf_text):
    return Scene(urdf_text)


@settings(max_examples=60, deadline=None)
@given(part=st.lists(st.floats(0.0, 1.0), min_size=7, max_size=7))
def test_when_the_arm_is_anywhere_expect_the_tool_where_the_chain_says(fr3, part):
    position = np.array(LOWER) + np.array(part) * (np.array(UPPER) - np.array(LOWER))
    fr3.set_joints(dict(zip(ARM, position, strict=True)))
    pose = tool_pose(position)
    assert fr3.tool_position() == pytest.approx(pose[:3, 3], abs=1e-9)
    assert fr3.tool_rotation() == pytest.approx(pose[:3, :3], abs=1e-9)


def test_when_all_joints_are_at_the_ready_pose_expect_the_published_tool_position(fr3):
    ready = (0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4)
    fr3.set_joints(dict(zip(ARM, ready, strict=True)))
    assert fr3.tool_position() == pytest.approx((0.30689, 0.0, 0.48688), abs=1e-5)
    assert fr3.tool_rotation() == pytest.approx(np.diag((1.0, -1.0, -1.0)), abs=1e-9)


@pytest.mark.parametrize('index', range(7))
def test_when_a_joint_is_read_expect_the_published_limits(urdf_text, index):
    root = ElementTree.fromstring(urdf_text)
    joint = root.find(f"joint[@name='{ARM[index]}']")
    limit = {key: float(value) for key, value in joint.find('limit').attrib.items()}
    assert joint.find('axis').get('xyz') == '0 0 1'
    assert limit == {
        'lower': LOWER[index],
        'upper': UPPER[index],
        'velocity': VELOCITY[index],
        'effort': EFFORT[index],
    }


def test_when_the_hand_closes_expect_both_fingers_to_mirror(fr3):
    fr3.set_joints({'fr3_finger_joint1': 0.03, 'fr3_finger_joint2': 0.03})
    left, right = (fr3.data.body(f'fr3_{side}finger').xpos for side in ('left', 'right'))
    hand = fr3.data.body('fr3_hand')
    offset = hand.xmat.reshape(3, 3).T @ np.column_stack((left - hand.xpos, right - hand.xpos))
    assert offset == pytest.approx(np.array([[0, 0], [0.03, -0.03], [0.0584, 0.0584]]), abs=1e-9)


def test_when_the_description_is_read_expect_no_meshes_and_a_mimic_finger(urdf_text):
    root = ElementTree.fromstring(urdf_text)
    assert not list(root.iter('mesh'))
    finger = root.find("joint[@name='fr3_finger_joint2']/mimic")
    assert finger.get('joint') == 'fr3_finger_joint1'


def test_when_an_inertia_is_read_expect_one_that_a_body_can_have(urdf_text):
    bodies = ElementTree.fromstring(urdf_text).findall('link/inertial')
    assert len(bodies) == 11
    for body in bodies:
        i = {key: float(value) for key, value in body.find('inertia').attrib.items()}
        matrix = np.array(
            [
                [i['ixx'], i['ixy'], i['ixz']],
                [i['ixy'], i['iyy'], i['iyz']],
                [i['ixz'], i['iyz'], i['izz']],
            ]
        )
        principal = np.linalg.eigvalsh(matrix)
        assert principal[0] > 0.0
        assert principal[0] + principal[1] >= principal[2]
        assert float(body.find('mass').get('value')) > 0.0
