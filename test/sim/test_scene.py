# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The scene: what is in it, how it is placed, how the servos follow."""

import numpy as np
import pytest

from vla_deploy.sim.scene import CameraSize, Scene, SceneConfig, SceneError


def test_when_the_scene_is_built_expect_arm_and_fingers_in_order(scene):
    arm = tuple(f'fr3_joint{i}' for i in range(1, 8))
    assert scene.joint_names == (*arm, 'fr3_finger_joint1', 'fr3_finger_joint2')
    assert scene.base_link == 'fr3_link0'
    assert scene.camera_names == ('front', 'wrist')


def test_when_cubes_are_placed_expect_them_there_and_on_the_table(scene):
    scene.place_cubes({'red': (0.4, -0.2), 'blue': (0.6, 0.1, 0.3)})
    cubes = scene.cube_positions()
    assert cubes['red'] == pytest.approx((0.4, -0.2, 0.025))
    assert cubes['blue'] == pytest.approx((0.6, 0.1, 0.3))


def test_when_physics_runs_expect_cubes_not_to_move(scene):
    scene.place_cubes({'red': (0.4, -0.2, 0.5)})
    scene.step_for(0.2)
    assert scene.cube_positions()['red'] == pytest.approx((0.4, -0.2, 0.5))


def test_when_two_scenes_do_the_same_expect_the_same_to_the_bit(urdf_text):
    ends = []
    for _ in range(2):
        scene = Scene(urdf_text)
        scene.set_joints({'fr3_joint2': -0.5, 'fr3_joint4': -2.0})
        target = scene.positions
        target[:7] += 0.1
        scene.command(target)
        scene.step_for(0.3)
        ends.append((scene.positions, scene.velocities, scene.tool_position()))
    for one, two in zip(*ends, strict=True):
        assert one.tobytes() == two.tobytes()


def test_when_nothing_is_commanded_expect_the_arm_to_stay_against_gravity(scene):
    scene.set_joints({'fr3_joint2': 0.8, 'fr3_joint4': -1.2})
    before = scene.positions
    scene.step_for(1.0)
    assert scene.positions == pytest.approx(before, abs=1e-9)


def test_when_a_step_is_commanded_expect_the_arm_to_settle_there(scene):
    scene.set_joints({'fr3_joint4': -2.0, 'fr3_joint6': 2.0})
    target = scene.positions + np.array([0.2] * 7 + [0.02, 0.02])
    scene.command(target)
    scene.step_for(1.5)
    assert scene.positions == pytest.approx(target, abs=1e-4)
    assert scene.velocities == pytest.approx(np.zeros(9), abs=1e-3)


def test_when_the_servos_pull_hard_expect_no_more_torque_than_the_description_allows(scene):
    scene.set_joints({})
    scene.command(scene.positions + 2.0)
    scene.step()
    torque = np.abs(scene.data.qfrc_actuator)
    assert torque[:7] == pytest.approx([87.0] * 4 + [12.0] * 3)


def test_when_a_snapshot_is_taken_expect_it_unchanged_by_what_follows(scene):
    state = scene.snapshot()
    kept = state.joint_positions.copy()
    scene.set_joints({'fr3_joint1': 1.0})
    scene.place_cubes({'red': (0.5, 0.0)})
    assert state.joint_positions == pytest.approx(kept)
    assert not np.allclose(state.cube_positions, scene.snapshot().cube_positions)


def test_when_the_jacobian_is_asked_for_expect_the_derivative_of_the_tool_position(scene):
    scene.set_joints({'fr3_joint1': 0.3, 'fr3_joint2': -0.4, 'fr3_joint4': -1.9})
    jacobian, start = scene.tool_jacobian(), scene.tool_position()
    joints = dict(zip(scene.joint_names, scene.positions, strict=True))
    for index, name in enumerate(scene.joint_names[:7]):
        scene.set_joints({**joints, name: joints[name] + 1e-6})
        assert (scene.tool_position() - start) / 1e-6 == pytest.approx(
            jacobian[:3, index], abs=1e-5
        )


@pytest.mark.parametrize(
    ('act', 'words'),
    [
        (lambda s: s.set_joints({'fr3_joint9': 0.0}), "unknown joint 'fr3_joint9'"),
        (lambda s: s.place_cubes({'pink': (0.5, 0.0)}), "unknown cube 'pink'"),
        (lambda s: s.place_cubes({'red': (0.5, float('nan'))}), 'red cube cannot be put'),
        (lambda s: s.place_cubes({'red': (0.5,)}), 'red cube cannot be put'),
    ],
)
def test_when_something_unknown_is_asked_of_the_scene_expect_it_named(scene, act, words):
    with pytest.raises(SceneError, match=words):
        act(scene)


@pytest.mark.parametrize(
    ('text', 'config', 'words'),
    [
        ('<nothing/>', SceneConfig(), 'no <robot> element'),
        ('<robot name="r"><link name="a"/>', SceneConfig(), 'cannot read'),
        (None, SceneConfig(tool_link='claw'), "no link 'claw'"),
        (None, SceneConfig(cameras={'rear': CameraSize()}), "unknown camera 'rear'"),
    ],
)
def test_when_the_scene_cannot_be_built_expect_the_reason(urdf_text, text, config, words):
    with pytest.raises(SceneError, match=words):
        Scene(urdf_text if text is None else text, config)
