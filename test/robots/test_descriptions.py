# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Each robot's files: published figures, sources, placeholders, and that they fit together."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from robot_figures import FIGURES, ROBOTS, ROOT, limits, parameters, read, simulation, urdf

from vla_deploy.bringup import BringUpOptions, bring_up, robots
from vla_deploy.core.guard import GuardCore
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limits import LimitsError, load_limits
from vla_deploy.core.outputs import DeadBand, OutputDetails, check_hysteresis, plan_outputs
from vla_deploy.core.parameter import parameters_of
from vla_deploy.files import read_yaml
from vla_deploy.pipeline.inference_config import InferenceConfig

mujoco = pytest.importorskip('mujoco')
DESCRIPTIONS = sorted((ROOT / 'urdf').glob('*.urdf'))
SIM = BringUpOptions(sim=True, inference=False)
REAL = BringUpOptions(inference=False)


@pytest.mark.parametrize('robot', ROBOTS)
def test_when_limits_are_loaded_expect_the_published_figures(robot):
    loaded, figures = limits(robot), FIGURES[robot]
    assert loaded.names == figures.joints
    for name in ('lower', 'upper', 'velocity', 'acceleration'):
        assert getattr(loaded, name) == pytest.approx(getattr(figures, name), abs=1e-12), name
    assert tuple(joint.effort for joint in loaded.joints) == figures.effort
    assert tuple(joint.jerk for joint in loaded.joints) == (
        figures.jerk or (None,) * len(figures.joints)
    )


@pytest.mark.parametrize('robot', ROBOTS)
def test_when_figures_are_placeholders_expect_them_marked_and_noted(robot):
    loaded, figures = limits(robot), FIGURES[robot]
    assert loaded.placeholders == (figures.joints if figures.placeholder else ())
    for name in loaded.placeholders:
        assert any(name in note and 'placeholder' in note for note in loaded.notes)


@pytest.mark.parametrize('robot', ROBOTS)
def test_when_limits_are_placeholders_expect_no_activation_before_they_are_accepted(robot):
    refusal = GuardCore(limits(robot), GuardConfig()).activation_refusal()
    assert bool(refusal) == FIGURES[robot].placeholder
    if refusal:
        assert 'accept_placeholder_limits' in refusal
        assert FIGURES[robot].joints[0] in refusal
    accepted = GuardConfig(accept_placeholder_limits=True)
    assert GuardCore(limits(robot), accepted).activation_refusal() == ''


@pytest.mark.parametrize('robot', ROBOTS)
def test_when_a_limit_is_written_down_expect_its_source_and_no_joint_without_limits(robot):
    entries = read(robot, 'joint_limits.yaml')['joint_limits']
    assert set(FIGURES[robot].joints) <= set(entries)
    for name, entry in entries.items():
        assert len(entry['source']) > 20, name
        assert ('placeholder' in entry['source'] or 'chosen' in entry['source']) == (
            entry['placeholder']
        ), name


def test_when_the_second_finger_is_to_be_commanded_expect_a_refusal():
    with pytest.raises(LimitsError, match='mimics'):
        load_limits(
            urdf('aloha'), ['follower_left/right_finger'], read('aloha', 'joint_limits.yaml')
        )


# -- descriptions -------------------------------------------------------------------------------


@pytest.mark.parametrize('path', DESCRIPTIONS, ids=lambda p: p.stem)
def test_when_a_description_is_read_expect_its_sources_and_no_meshes(path):
    text = path.read_text()
    root = ElementTree.fromstring(text)
    assert root.get('name') == path.stem
    assert not list(root.iter('mesh'))
    head = text[: text.index('<robot')]
    assert 'public kinematics' in head or 'Kinematics' in head or 'kinematics' in head


@pytest.mark.parametrize('path', DESCRIPTIONS, ids=lambda p: p.stem)
def test_when_a_link_has_shapes_expect_the_inertia_of_these_shapes(path):
    text = path.read_text()
    end = text.index('>', text.index('<robot ')) + 1

    def bodies(options):
        options = f'<mujoco><compiler fusestatic="false" discardvisual="true" {options}/></mujoco>'
        model = mujoco.MjModel.from_xml_string(text[:end] + options + text[end:])
        matrices = {}
        for index in range(1, model.nbody):
            if model.body_mass[index] > 0.0:
                turn = np.zeros(9)
                mujoco.mju_quat2Mat(turn, model.body_iquat[index])
                turn = turn.reshape(3, 3)
                inertia = turn @ np.diag(model.body_inertia[index]) @ turn.T
                name = model.body(index).name
                matrices[name] = (model.body_ipos[index], inertia / model.body_mass[index])
        return matrices

    written, of_shapes = bodies('inertiafromgeom="false"'), bodies('inertiafromgeom="true"')
    assert set(written) == set(of_shapes)
    for link, (centre, inertia) in written.items():
        assert centre == pytest.approx(of_shapes[link][0], abs=2e-5), link
        scale = np.trace(of_shapes[link][1])
        assert inertia == pytest.approx(of_shapes[link][1], abs=2e-3 * scale), link


# -- bring-up -----------------------------------------------------------------------------------


def test_when_robots_are_listed_expect_those_that_can_be_simulated():
    assert set(robots()) == set(ROBOTS)


def test_when_aloha_is_real_expect_its_own_topics_groups_and_states():
    guard, inference = bring_up('aloha', BringUpOptions(), ROOT)
    simulated = bring_up('aloha', BringUpOptions(sim=True), ROOT)
    assert not any('_robot.yaml' in word for p in simulated[1:] for word in p.command)
    for process in (guard, inference):
        (given,) = [word for word in process.command if word.endswith('_robot.yaml')]
        (node,) = read_yaml(given).values()
        assert node['ros__parameters']['joint_state_prefixes'] == [
            'follower_left/', 'follower_right/']
    (node,) = read_yaml(ROOT / 'config' / 'aloha' / 'guard_robot.yaml').values()
    given = node['ros__parameters']
    outputs = plan_outputs(
        given['output_topics'], given['output_types'], given['output_joints'],
        parameters('aloha', 'guard.yaml')['joint_names'],
        details=OutputDetails(given['output_names'], given['output_scales'],
                              given['output_offsets'], given['output_hysteresis']),
    )  # fmt: skip
    check_hysteresis(outputs, limits('aloha').velocity, GuardConfig().period_s)
    assert [o.topic.split('/')[1] for o in outputs] == [
        'follower_left', 'follower_left', 'follower_right', 'follower_right']
    assert [len(o.joints) for o in outputs] == [6, 1, 6, 1]
    closed, opened = DeadBand(outputs[1]), DeadBand(outputs[1])
    assert closed.command(limits('aloha').lower) == pytest.approx([-0.62], abs=0.01)
    assert opened.command(limits('aloha').upper) == pytest.approx([1.49], abs=0.01)


@pytest.mark.parametrize('robot', ROBOTS)
def test_when_a_robot_is_described_expect_every_file_and_a_launch_file(robot):
    description = read(robot, 'bringup.yaml')
    paths = [description['urdf'], description['limits']]
    paths += [process['parameters'] for process in description['processes']]
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    launch = (ROOT / 'launch' / f'{robot}.launch.py').read_text()
    assert f"launch_description('{robot}')" in launch
    assert f'ros2 launch vla_deploy {robot}.launch.py --show-args' in launch


@pytest.mark.parametrize('robot', ROBOTS)
def test_when_the_simulation_stands_in_for_a_robot_expect_the_guarded_joints(robot):
    guarded = parameters(robot, 'guard.yaml')['joint_names']
    config = simulation(robot)
    assert config.joints == guarded
    loaded = limits(robot)
    home = config.robot().layout.home
    margin = parameters(robot, 'guard.yaml').get('soft_margin', GuardConfig().soft_margin)
    for name, value, lower, upper in zip(
        loaded.names, home, loaded.lower, loaded.upper, strict=False
    ):
        assert lower + margin <= value <= upper - margin, name


@pytest.mark.parametrize('robot', ROBOTS)
def test_when_inference_is_configured_expect_only_known_parameters(robot):
    known = {p.name for p in parameters_of(InferenceConfig)} | {'autostart', 'autostart_timeout_s'}
    assert set(parameters(robot, 'inference.yaml')) <= known


@pytest.mark.parametrize('robot', sorted(set(ROBOTS) - {'quadcopter', 'aloha'}))
def test_when_a_real_robot_is_brought_up_expect_commands_to_its_own_controller(robot):
    (guard,) = bring_up(robot, REAL, None)
    targets = [word for word in guard.command if word.startswith('joint_trajectory:=')]
    assert len(targets) == 1
    assert targets[0].endswith('/joint_trajectory')
    assert 'auto_arm:=false' in guard.command
    assert 'accept_placeholder_limits:=false' in guard.command
    text = (ROOT / 'config' / robot / 'bringup.yaml').read_text()
    assert 'interpolate_from_desired_state: true' in text
