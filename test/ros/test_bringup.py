# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""One bring-up description; `up` and the launch file start exactly it."""

import dataclasses
import shlex
import shutil
from pathlib import Path

import pytest

from vla_deploy import bringup
from vla_deploy.bringup import BringUpOptions, bring_up, options_from_arguments, robots
from vla_deploy.cli import guard_limits, guarded_robot, up
from vla_deploy.core.parameter import ParameterError, parameters_of
from vla_deploy.files import write_yaml

SIM = BringUpOptions(sim=True)


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / 'bundle'
    folder.mkdir()
    return folder


def test_when_simulated_expect_robot_guard_and_inference(bundle):
    assert [p.name for p in bring_up('franka', SIM, bundle)] == ['sim_robot', 'guard', 'inference']


def test_when_real_expect_no_simulation_and_the_robot_s_own_topics(bundle):
    processes = bring_up('franka', BringUpOptions(), bundle)
    assert [p.name for p in processes] == ['guard', 'inference']
    assert 'joint_trajectory:=fr3_arm_controller/joint_trajectory' in processes[0].command


def test_when_real_expect_that_the_guard_does_not_arm_itself(bundle):
    assert 'auto_arm:=false' in bring_up('franka', BringUpOptions(), bundle)[0].command


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('instruction', 'reach the red cube'),
        ('backend', 'stub'),
        ('provider', 'cuda'),
        ('precision', 'bf16'),
        ('variant', 'unrolled'),
        ('use_sim_time', True),
        ('sched_fifo_priority', 7),
        ('log_folder', '/elsewhere'),
        ('inference', False),
        ('record', True),
        ('sim', False),
    ],
)
def test_when_an_option_changes_expect_other_commands(bundle, option, value):
    changed = dataclasses.replace(SIM, **{option: value})
    assert bring_up('franka', changed, bundle) != bring_up('franka', SIM, bundle)


@pytest.mark.parametrize(
    ('options', 'accepted'),
    [
        (BringUpOptions(), 'false'),
        (BringUpOptions(accept_placeholder_limits=True), 'true'),
        (SIM, 'true'),
    ],
)
def test_when_limits_may_be_placeholders_expect_the_guard_told_whether_to_accept(
    bundle, options, accepted
):
    commands = {p.name: p.command for p in bring_up('franka', options, bundle)}
    assert f'accept_placeholder_limits:={accepted}' in commands['guard']


@pytest.mark.parametrize(
    ('ros_home', 'given', 'folder'),
    [
        ('/srv/robot', '', '/srv/robot/vla_deploy'),
        ('', '', str(Path.home() / '.ros' / 'vla_deploy')),
        ('/srv/robot', '~/logs', str(Path.home() / 'logs')),
        ('/srv/robot', 'none', ''),
    ],
)
def test_when_brought_up_expect_the_audit_log_where_it_was_asked_for(
    monkeypatch, ros_home, given, folder
):
    monkeypatch.setenv('ROS_HOME', ros_home)
    options = BringUpOptions(sim=True, inference=False, log_folder=given)
    (_, guard) = bring_up('franka', options, None)
    assert f'log_folder:="{folder}"' in guard.command


def test_when_recorded_expect_the_recorder_first_with_the_robot_s_names_and_topics(bundle):
    options = BringUpOptions(record=True, record_directory='/bags', record_images='hashed')
    recorder, *others = bring_up('franka', options, bundle)
    waits = {'inference': ('-p', 'wait_for_recorder:=true')}
    assert [(p.name, p.command) for p in others] == [
        (p.name, p.command + waits.get(p.name, ()))
        for p in bring_up('franka', BringUpOptions(), bundle)
    ]
    assert recorder.name == 'recorder'  # ends last, so that the stop is in the bag
    assert recorder.ready == 'records into'  # and is waited for, so that the start is, too
    assert {
        'robot:="franka"', 'directory:="/bags"', 'images:="hashed"',
        'nodes:=["guard", "inference"]', f'bundle:="{bundle}"',
        'joint_trajectory:=fr3_arm_controller/joint_trajectory',
    } <= set(recorder.command)  # fmt: skip


# Sections of a parameter file that do not speak of inference.
OTHER_NODES = """
viewer:
  ros__parameters: {compressed_cameras: [wrist]}
left_arm:
  inference:
    ros__parameters: {compressed_cameras: [wrist]}
"""


def test_when_inference_hears_a_camera_compressed_expect_its_recorder_told(
    bundle, tmp_path, monkeypatch
):
    share = tmp_path / 'share'
    shutil.copytree(bringup.share_directory() / 'config', share / 'config')
    parameters = share / 'config' / 'franka' / 'inference.yaml'
    text = parameters.read_text()
    assert text.count('  ros__parameters:') == 1
    text = text.replace('  ros__parameters:', '  ros__parameters:\n    compressed_cameras: [front]')
    parameters.write_text(text + OTHER_NODES)
    monkeypatch.setattr(bringup, 'share_directory', lambda: share)
    recorder = bring_up('franka', BringUpOptions(record=True), bundle)[0]
    assert 'compressed_cameras:=["front"]' in recorder.command


def test_when_inference_is_off_expect_no_bundle_needed():
    options = dataclasses.replace(SIM, inference=False)
    assert [p.name for p in bring_up('franka', options, None)] == ['sim_robot', 'guard']


def test_when_up_goes_without_inference_expect_no_policy_looked_for(capsys):
    assert up.main(['ur5', 'sim:=true', 'inference:=false', '--print-commands']) == 0
    assert [line.split(':')[0] for line in capsys.readouterr().out.splitlines()] == [
        'sim_robot', 'guard',
    ]  # fmt: skip


def test_when_a_robot_comes_without_a_policy_expect_a_bundle_asked_for(capsys):
    assert up.main(['ur5', 'sim:=true', '--print-commands']) == 2
    assert 'ur5 comes without a policy: give bundle:=FOLDER' in capsys.readouterr().err


def test_when_bundle_changes_expect_it_in_the_command(bundle, tmp_path):
    commands = [p.command for p in bring_up('franka', SIM, tmp_path)]
    assert commands != [p.command for p in bring_up('franka', SIM, bundle)]


def test_when_instruction_looks_like_a_number_expect_it_to_stay_a_text(bundle):
    options = dataclasses.replace(SIM, instruction='42')
    assert 'instruction:="42"' in bring_up('franka', options, bundle)[-1].command


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('sym:=true', "unknown parameter 'sym'; did you mean 'sim'"),
        ('sim:=yes', 'sim must be true or false'),
        ('sched_fifo_priority:=high', 'sched_fifo_priority must be a whole number'),
        ('sched_fifo_priority:=100', 'sched_fifo_priority is 100, above'),
        ('sim', 'not of the form name:=value'),
    ],
)
def test_when_argument_is_wrong_expect_it_named(argument, message):
    with pytest.raises(ParameterError, match=message):
        options_from_arguments([argument])


def test_when_robot_is_unknown_expect_the_known_ones(bundle):
    with pytest.raises(ParameterError, match=r"unknown robot 'frnka'; known: .*franka"):
        bring_up('frnka', SIM, bundle)


@pytest.mark.parametrize('robot', robots())
def test_when_launched_expect_exactly_what_up_starts(robot, bundle):
    # Not plain `launch`: our folder of that name would pass for it.
    pytest.importorskip('launch.actions', reason='the launch package of ROS 2 is not installed')
    from launch import LaunchContext
    from launch.actions import ExecuteProcess, OpaqueFunction, RegisterEventHandler
    from launch.events.process import ProcessIO

    from vla_deploy.ros.launch import launch_description

    def processes(entities):
        for entity in entities:
            if isinstance(entity, ExecuteProcess):
                yield entity
            if isinstance(entity, RegisterEventHandler):
                waited_for.append(entity.event_handler)

    def printed(text):
        return ProcessIO(text=text, fd=2, action=None, name='recorder', cmd=[], cwd=None, env=None,
                         pid=1)  # fmt: skip

    context = LaunchContext()
    arguments = {p.name: p.default for p in parameters_of(BringUpOptions)}
    arguments.update(sim=True, record=True, instruction='reach the red cube', bundle=str(bundle))
    context.launch_configurations.update({k: str(v) for k, v in arguments.items()})
    waited_for = []
    (function,) = (
        e for e in launch_description(robot).entities if isinstance(e, OpaqueFunction)
    )
    started = list(processes(function.execute(context)))
    (handler,) = waited_for
    started += processes(handler.handle(printed(b'records into /bags/1'), context))
    for entity in started:
        entity.prepare(context)
    expected = bring_up(robot, BringUpOptions(**arguments), bundle)
    assert [tuple(e.process_details['cmd']) for e in started] == [p.command for p in expected]


def test_when_commands_are_printed_expect_a_shell_to_read_the_same_words(bundle, capsys):
    options = {'sim': 'true', 'bundle': str(bundle), 'instruction': 'the red cube, "now"'}
    words = [f'{name}:={value}' for name, value in options.items()]
    assert up.main(['franka', *words, '--print-commands']) == 0
    printed = dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines())
    assert {name: tuple(shlex.split(line)) for name, line in printed.items()} == {
        process.name: process.command
        for process in bring_up('franka', options_from_arguments(words), bundle)
    }


def test_when_configuration_names_a_file_expect_it_to_exist(bundle):
    share = bringup.share_directory()
    for robot in robots():
        description = bringup.read_yaml(share / 'config' / robot / 'bringup.yaml')
        paths = [description['urdf'], description['limits']]
        paths += [process['parameters'] for process in description['processes']]
        assert [p for p in paths if not (share / p).is_file()] == []


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('urdf:', 'urdfs:', "unknown key urdfs; did you mean 'urdf'"),
        ('    parameters_on_robot:', '    parameters_robot:', "did you mean 'parameters_on_robot'"),
        ('    only_in_sim: true', '    only_sim: true', 'unknown key processes.sim_robot.only_sim'),
        ('limits: ', 'policy: ', 'missing key limits'),
        ('    executable: guard\n', '', 'missing key processes.guard.executable'),
    ],
)
def test_when_a_description_has_a_wrong_key_expect_the_file_and_the_key(
    tmp_path, old, new, words
):
    text = (bringup.share_directory() / 'config/aloha/bringup.yaml').read_text()
    assert old in text
    path = tmp_path / 'bringup.yaml'
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ParameterError) as error:
        bringup.read_description(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)


@pytest.fixture
def described(tmp_path, monkeypatch):
    """Return a function that describes a robot `one` like the UR5, with a change to it."""
    path = tmp_path / 'config' / 'one' / 'bringup.yaml'
    path.parent.mkdir(parents=True)
    description = bringup.read_yaml(bringup.share_directory() / 'config/ur5/bringup.yaml')
    for module in (bringup, guarded_robot):
        monkeypatch.setattr(module, 'share_directory', lambda: tmp_path)

    def write(key, value, process=None):
        (description if process is None else description['processes'][process])[key] = value
        write_yaml(path, description)
        return path

    return write


@pytest.mark.parametrize(
    ('key', 'value', 'said'),
    [
        ('processes', None, 'processes must be a list of processes, not None'),
        ('processes', [], 'processes must be a list of processes, not []'),
        ('processes', {'guard': {}}, 'processes must be a list of processes, not {'),
        ('processes', ['guard'], 'processes[0] must be a mapping with keys as name and executable'),
        ('urdf', 3, 'urdf must be a path'),
        ('limits', ['a.yaml'], 'limits must be a path'),
        ('policy', None, 'policy must be a path'),
    ],
)
def test_when_a_description_holds_something_else_expect_both_tools_to_name_file_and_key(
    described, capsys, key, value, said
):
    path = described(key, value)
    assert up.main(['one', 'sim:=true', 'inference:=false']) == 2
    assert guard_limits.main(['--robot', 'one']) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(f'{path}: ')[0] for line in lines] == ['up: ', 'guard check_limits: ']
    assert all(said in line for line in lines)


@pytest.mark.parametrize(
    ('key', 'value', 'said'),
    [
        ('name', 'left arm', "name must be a name of letters, digits and _, not 'left arm'"),
        ('name', None, 'name must be a name'),
        ('name', 'sim_robot', "processes: name 'sim_robot' is given twice"),
        ('executable', 'gaurd', "inference, sim_robot, not 'gaurd'; did you mean 'guard'?"),
        ('executable', ['guard'], 'executable must be one of'),
        ('executable', 'inference', 'processes must have one with executable guard, not 0'),
        ('parameters', None, 'processes.guard.parameters must be a path'),
        ('parameters_on_robot', 1, 'processes.guard.parameters_on_robot must be a path'),
        ('given', 'urdf_path', "guard.given must be a list of names, not 'urdf_path'"),
        ('given', [1], 'guard.given must be a list of names, not [1]'),
        ('only_in_sim', 'yes', "guard.only_in_sim must be true or false, not 'yes'"),
        ('nice', 'abc', "guard.nice must be a whole number from -20 to 19, not 'abc'"),
        ('nice', True, 'guard.nice must be a whole number'),
        ('nice', 20, 'guard.nice must be a whole number'),
        ('remappings_on_robot', ['a:=b'], 'guard.remappings_on_robot must be a mapping of names'),
        ('remappings_on_robot', {'a': 1}, 'guard.remappings_on_robot must be a mapping of names'),
    ],
)
def test_when_a_process_is_described_by_something_else_expect_file_and_key_named(
    described, key, value, said
):
    path = described(key, value, process=1)
    with pytest.raises(ParameterError) as error:
        bringup.read_description(path)
    assert str(error.value).startswith(f'{path}: processes')
    assert said in str(error.value)


def test_when_the_readme_describes_a_robot_expect_its_processes(tmp_path, monkeypatch):
    readme = Path(__file__).parents[2] / 'README.md'
    section = readme.read_text().partition('## Your own robot')[2]
    path = tmp_path / 'config' / 'my_arm' / 'bringup.yaml'
    path.parent.mkdir(parents=True)
    path.write_text(section.partition('```yaml\n')[2].partition('```')[0])
    monkeypatch.setattr(bringup, 'share_directory', lambda: tmp_path)
    options = BringUpOptions(sim=True, inference=False)
    assert [p.name for p in bring_up('my_arm', options, None)] == ['sim_robot', 'guard']
    (guard,) = bring_up('my_arm', BringUpOptions(inference=False), None)
    assert 'joint_trajectory:=arm_controller/joint_trajectory' in guard.command
    assert str(tmp_path / 'config/my_arm/guard_robot.yaml') in guard.command


def test_when_a_process_asks_for_something_unknown_expect_it_named(tmp_path, monkeypatch):
    share = tmp_path / 'share'
    (share / 'config' / 'one').mkdir(parents=True)
    text = (bringup.share_directory() / 'config/ur5/bringup.yaml').read_text()
    text = text.replace('given: [urdf_path, clock]', 'given: [urdf_path, clocks]')
    (share / 'config' / 'one' / 'bringup.yaml').write_text(text)
    monkeypatch.setattr(bringup, 'share_directory', lambda: share)
    with pytest.raises(ParameterError, match="sim_robot: 'clocks' is not given to processes"):
        bring_up('one', dataclasses.replace(SIM, inference=False), None)
