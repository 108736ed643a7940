# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""guard check_limits: the limits in force, each with its source."""

import json

import pytest

from vla_deploy.cli import guard_limits
from vla_deploy.files import read_yaml, write_yaml
from vla_deploy.share import share_directory

URDF = share_directory() / 'urdf' / 'fr3.urdf'


def limits_of(capsys, *arguments):
    assert guard_limits.main([*arguments, '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    return report, {
        joint['name']: {f['name']: f for f in joint['figures']} for joint in report['joints']
    }


def test_when_limits_are_checked_expect_each_figure_with_unit_and_source(capsys):
    report, figures = limits_of(capsys, '--robot', 'franka')
    joint = figures['fr3_joint4']
    assert joint['position_upper'] == {
        'name': 'position_upper', 'value': -0.1518, 'unit': 'rad', 'source': 'URDF'}
    assert joint['acceleration']['value'] == 10.0
    assert 'franka_description' in joint['acceleration']['source']
    assert joint['position_dependent_velocity.k']['value'] == 8.0
    assert len(report['limits_sha256']) == 64
    assert not any(joint['placeholder'] for joint in report['joints'])
    assert guard_limits.main(['--robot', 'franka']) == 0
    table = capsys.readouterr().out
    assert 'no placeholders' in table
    assert 'PLACEHOLDER' not in table


def test_when_figures_are_placeholders_expect_them_marked(capsys):
    report, _ = limits_of(capsys, '--robot', 'so101')
    assert all(joint['placeholder'] for joint in report['joints'])
    assert guard_limits.main(['--robot', 'so101']) == 0
    table = capsys.readouterr().out
    assert 'PLACEHOLDER' in table
    assert 'placeholders, not ratings: shoulder_pan' in table


def test_when_a_joint_has_no_bound_expect_none_and_why(capsys):
    _, figures = limits_of(capsys, '--robot', 'quadcopter')
    yaw = figures['base_yaw']['position_upper']
    assert (yaw['value'], yaw['source']) == (None, 'continuous joint: no bound')


def test_when_every_robot_is_checked_expect_figures_for_each_joint(capsys):
    for path in sorted((share_directory() / 'config').glob('*/bringup.yaml')):
        _, figures = limits_of(capsys, '--robot', path.parent.name)
        assert all({'velocity', 'acceleration'} <= set(joint) for joint in figures.values())


@pytest.fixture
def share(tmp_path, monkeypatch):
    """A share folder with a copy of the FR3 whose limits a test may change."""
    (tmp_path / 'config' / 'franka').mkdir(parents=True)
    (tmp_path / 'urdf').mkdir()
    for name in ('config/franka/bringup.yaml', 'config/franka/guard.yaml', 'urdf/fr3.urdf'):
        (tmp_path / name).write_bytes((share_directory() / name).read_bytes())
    monkeypatch.setattr('vla_deploy.cli.guarded_robot.share_directory', lambda: tmp_path)

    def change(joint, **figures):
        limits = read_yaml(URDF.parents[1] / 'config' / 'franka' / 'joint_limits.yaml')
        limits['joint_limits'][joint].update(figures)
        limits['workspace'] = {'table': {
            'links': ['fr3_link7'], 'half_space': {'normal': [0, 0, 1], 'offset': 0.0},
            'source': 'measured'}}
        write_yaml(tmp_path / 'config' / 'franka' / 'joint_limits.yaml', limits)

    return change


@pytest.mark.parametrize('enforced', [False, True])
def test_when_the_guard_enforces_jerk_or_not_expect_it_among_the_limits_or_not(
    share, tmp_path, capsys, enforced
):
    share('fr3_joint1')
    path = tmp_path / 'config' / 'franka' / 'guard.yaml'
    parameters = read_yaml(path)
    parameters['/**']['ros__parameters']['enforce_jerk'] = enforced
    write_yaml(path, parameters)
    _, figures = limits_of(capsys, '--robot', 'franka')
    assert ('jerk' in figures['fr3_joint1']) == enforced


def test_when_the_overlay_changes_the_urdf_expect_how_and_from_what(share, capsys):
    share('fr3_joint1', velocity=1.5, position_upper=2.8, allow_widen='longer cable')
    report, figures = limits_of(capsys, '--robot', 'franka')
    assert figures['fr3_joint1']['position_upper']['source'].endswith(
        '; widens 2.7437 of the URDF: longer cable')
    share('fr3_joint1', velocity=1.5)
    report, figures = limits_of(capsys, '--robot', 'franka')
    assert figures['fr3_joint1']['velocity']['source'].endswith('; tightens 2.62 of the URDF')
    assert report['workspace'] == [
        {'name': 'table', 'links': ['fr3_link7'], 'source': 'measured'}]
    assert guard_limits.main(['--robot', 'franka']) == 0
    assert 'workspace table: fr3_link7 (measured)' in capsys.readouterr().out


def test_when_a_limit_is_wrong_expect_exit_code_2_naming_file_and_key(share, capsys):
    share('fr3_joint1', velocty=1.5)
    assert guard_limits.main(['--robot', 'franka']) == 2
    said = capsys.readouterr().err
    assert 'joint_limits.yaml: unknown key joint_limits.fr3_joint1.velocty; did you mean' in said


@pytest.mark.parametrize(
    ('written', 'meant'),
    [('start_jmp', 'start_jump'), ('enforce_jrk', 'enforce_jerk'), ('log_foldr', 'log_folder'),
     ('autostrt', 'autostart')],
)
def test_when_a_key_of_the_guard_is_misspelt_expect_what_the_guard_itself_says_of_it(
    share, tmp_path, capsys, written, meant
):
    share('fr3_joint1')
    path = tmp_path / 'config' / 'franka' / 'guard.yaml'
    parameters = read_yaml(path)
    parameters['/**']['ros__parameters'][written] = 1.0
    write_yaml(path, parameters)
    assert guard_limits.main(['--robot', 'franka']) == 2
    assert capsys.readouterr().err == (
        f'guard check_limits: {path}: unknown parameter {written!r}; did you mean {meant!r}?\n'
    )


def test_when_the_guard_s_file_holds_what_every_node_takes_expect_the_limits_shown(
    share, tmp_path, capsys
):
    share('fr3_joint1')
    path = tmp_path / 'config' / 'franka' / 'guard.yaml'
    parameters = read_yaml(path)
    parameters['/**']['ros__parameters'] |= {
        'autostart': True, 'log_folder': '', 'use_sim_time': True,
        'start_type_description_service': False, 'qos_overrides': {'/parameter_events': {}},
    }  # fmt: skip
    write_yaml(path, parameters)
    limits_of(capsys, '--robot', 'franka')


def test_when_a_safety_controller_bounds_a_joint_expect_it_as_the_source(tmp_path, capsys):
    path = tmp_path / 'soft.urdf'
    soft = '<safety_controller soft_lower_limit="-1.0" soft_upper_limit="1.0" k_velocity="1"/>'
    text = URDF.read_text()
    head, joint, tail = text.partition('<joint name="fr3_joint1" type="revolute">')
    path.write_text(f'{head}{joint}{soft}{tail}')
    _, figures = limits_of(capsys, '--robot', 'franka', '--urdf', str(path))
    upper = figures['fr3_joint1']['position_upper']
    assert (upper['value'], upper['source']) == (1.0, 'URDF safety_controller')
