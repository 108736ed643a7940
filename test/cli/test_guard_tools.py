# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's tools beside the node: which rule a chunk breaks, and what a run or a log shows."""

import json
import subprocess
import sys

import numpy as np
import pytest
from bags import Written
from guard_world import HOME, NAMES, World, smooth_plan
from sensor_msgs.msg import JointState

from vla_deploy.cli import guard, guard_explain, guard_limits
from vla_deploy.core.audit import AuditLog
from vla_deploy.core.audit_config import AuditConfig
from vla_deploy.core.guard_io import Inputs
from vla_deploy.core.journal import genesis_of
from vla_deploy.ros.conversions import duration_msg, time_msg
from vla_deploy.share import share_directory
from vla_deploy_msgs.msg import ActionChunk, Violation

WAIT_S = 30.0
URDF = share_directory() / 'urdf' / 'fr3.urdf'


def chunk(**changes):
    values = {
        'joint_names': list(NAMES), 'period_s': 0.05,
        'data': smooth_plan(HOME, np.full(7, 0.1), 20, 0.05).tolist(),
    }  # fmt: skip
    return {**values, **changes}


@pytest.fixture
def explain(tmp_path, capsys):
    """Return a function that explains a chunk under the limits of the FR3: (exit code, output)."""

    def run(values, *options):
        path = tmp_path / 'chunk.json'
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        code = guard_explain.main(['--chunk', str(path), '--robot', 'franka', *options])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def moved(joint, sample, to):
    data = np.array(chunk()['data'])
    data[sample, joint] = to
    return data.tolist()


def test_when_a_chunk_is_clean_expect_exit_code_0_and_nothing_found(explain):
    assert explain(chunk()) == (0, '1 judged, 0 with something found\n')


def test_when_a_chunk_leaves_the_range_expect_sample_joint_rule_value_and_limit(explain):
    code, said = explain(chunk(data=moved(1, 19, 1.9)), '--json')
    assert code == 1
    (report,) = json.loads(said)
    (position,) = [v for v in report['violations'] if v['rule'] == 'position']
    assert position['joint'] == 'fr3_joint2'
    assert position['sample'] == 18
    assert position['value'] == pytest.approx(1.9)
    assert position['limit'] == pytest.approx(1.7837 - 0.005)
    assert (position['unit'], position['action']) == ('rad', 'CLAMPED')
    code, text = explain(chunk(data=moved(1, 19, 1.9)))
    assert code == 1
    assert any(line.split()[:3] == ['18', 'fr3_joint2', 'position'] for line in text.splitlines())


def test_when_a_sample_is_nan_expect_it_named_in_valid_json(explain):
    code, said = explain(chunk(data=moved(4, 3, float('nan'))), '--json')
    assert code == 1
    (violation,) = json.loads(said)[0]['violations']
    assert (violation['rule'], violation['joint'], violation['sample'], violation['value']) == (
        'finite', 'fr3_joint5', 3, 'nan')


def test_when_the_robot_stands_elsewhere_expect_the_start_jump(explain):
    code, said = explain(chunk(measured=(HOME + 0.5).tolist()))
    assert code == 1
    assert 'start_jump' in said


def test_when_the_chunk_is_in_velocity_expect_the_mode_refused_for_an_arm(explain):
    assert 'control_mode' in explain(chunk(control_mode='velocity'))[1]


def test_when_the_chunk_is_an_npz_expect_the_same_as_from_json(explain, tmp_path, capsys):
    values = chunk(data=moved(1, 19, 1.9))
    path = tmp_path / 'chunk.npz'
    np.savez(path, **{key: np.array(value) for key, value in values.items()})
    assert guard_explain.main(['--chunk', str(path), '--robot', 'franka']) == 1
    from_npz = capsys.readouterr().out
    assert explain(values) == (1, from_npz)


@pytest.mark.parametrize(('values', 'said'), [
    ('', 'is neither JSON nor NPZ'),
    ('{"a": ', 'is neither JSON nor NPZ'),
    ('PK\x03\x04', 'is neither JSON nor NPZ'),
    ('[' * 100000, 'is neither JSON nor NPZ'),
    ('[1]', 'must be a mapping'),
    ({'joint_names': [], 'data': []}, 'missing key period_s'),
    (chunk(perod_s=1.0), "unknown key perod_s; did you mean 'period_s'?"),
    (chunk(data='many'), 'data is not an array of numbers'),
    (chunk(data=[[10**400] * 7] * 2), 'data is not an array of numbers'),
    (chunk(period_s='soon'), "period_s is 'soon', not a number of seconds"),
    (chunk(period_s=[0.1]), 'period_s is [0.1], not a number of seconds'),
    (chunk(joint_names='abc'), "joint_names is 'abc', not a list of names"),
    (chunk(joint_names=[1, 2]), 'joint_names is [1, 2], not a list of names'),
    (chunk(measured=[1.0]), 'measured is [1], not one position for each of 7 joint_names'),
    (chunk(control_mode='torque'), "control_mode is 'torque', not one of position, velocity"),
])
def test_when_the_file_is_bad_expect_exit_code_2_and_one_line_that_names_it(
    explain, values, said
):
    code, text = explain(values)
    assert code == 2
    assert said in text
    assert 'chunk.json' in text
    assert text.count('\n') == 1


def test_when_another_description_is_given_expect_its_limits(explain, tmp_path):
    narrow = tmp_path / 'narrow.urdf'
    text = URDF.read_text()
    assert 'upper="2.7437"' in text
    narrow.write_text(text.replace('upper="2.7437"', 'upper="0.05"', 1))
    assert explain(chunk())[0] == 0
    code, said = explain(chunk(), '--urdf', str(narrow))
    assert code == 1
    assert 'position' in said


@pytest.mark.parametrize(('arguments', 'said'), [
    (['--chunk', 'x.json'], '--chunk needs --robot'),
    (['--bag', 'log', '--urdf', 'x.urdf'], '--urdf needs --robot'),
    ([], 'one of the arguments --chunk --bag is required'),
])
def test_when_arguments_are_missing_expect_a_usage_error(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        guard_explain.main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(('robot', 'urdf', 'said'), [
    ('r2d2', None, "unknown robot 'r2d2'; known: aloha"),
    ('franka', '/nowhere/fr3.urdf', '/nowhere/fr3.urdf: cannot be read'),
    ('franka', URDF.parent / 'ur5.urdf', 'no such joint in the robot description'),
])
def test_when_the_robot_cannot_be_read_expect_both_tools_to_say_so_in_one_line(
    robot, urdf, said, tmp_path, capsys
):
    path = tmp_path / 'chunk.json'
    path.write_text(json.dumps(chunk()))
    options = ['--robot', robot, *(['--urdf', str(urdf)] if urdf else [])]
    assert guard_explain.main(['--chunk', str(path), *options]) == 2
    assert guard_limits.main(options) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [said in line for line in lines] == [True, True]


@pytest.fixture
def log(tmp_path):
    """A log of a guard that refused a chunk, clamped one, and stopped for a lost joint state."""
    world = World()
    made = AuditLog(tmp_path / 'log', AuditConfig(),
                    genesis_of(world.limits, world.config, {}, {}))
    world.arm()
    for data in (moved(2, 5, float('nan')), moved(1, 19, 1.9)):
        inputs = Inputs(joint_state=world.measured(), chunks=(world.chunk(np.array(data)),))
        world.ros_ns, world.steady_ns = world.ros_ns + 10**7, world.steady_ns + 10**7
        out = world.core.step(world.ros_ns, world.steady_ns, inputs)
        made.step(world.ros_ns, world.steady_ns, inputs, out)
    out = world.core.step(world.ros_ns + 10**9, world.steady_ns + 10**7, Inputs())
    made.step(world.ros_ns + 10**9, world.steady_ns + 10**7, Inputs(), out)
    assert made.close(WAIT_S)
    return made.folder


def rules(report):
    return {(entry['verdict'], v['rule']) for entry in report for v in entry['violations']}


def test_when_a_log_is_explained_expect_what_the_guard_found_then(log, capsys):
    assert guard_explain.main(['--bag', str(log), '--json']) == 1
    found = rules(json.loads(capsys.readouterr().out))
    assert {('refused', 'finite'), ('clamped', 'position'), ('FAULT', 'joint_state_age')} <= found
    assert guard_explain.main(['--bag', str(log)]) == 1
    assert 'chunk 1 of session a: clamped' in capsys.readouterr().out


def test_when_a_log_is_explained_for_a_robot_expect_its_chunks_judged_by_its_limits(log, capsys):
    assert guard_explain.main(['--bag', str(log), '--robot', 'franka', '--json']) == 1
    found = rules(json.loads(capsys.readouterr().out))
    assert {('refused', 'finite'), ('clamped', 'position')} <= found
    assert 'joint_state_age' not in {rule for _, rule in found}
    assert guard_explain.main(['--bag', str(log), '--robot', 'ur5', '--json']) == 1
    assert rules(json.loads(capsys.readouterr().out)) == {('refused', 'joint_names')}


def test_when_there_is_no_log_to_explain_expect_exit_code_2(tmp_path, capsys):
    (tmp_path / 'notes.txt').write_text('nothing')
    for path in (tmp_path, tmp_path / 'notes.txt'):
        for robot in ([], ['--robot', 'franka']):
            assert guard_explain.main(['--bag', str(path), *robot]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert f'{path}: is neither a bag' in line
            assert 'nor an audit log' in line


@pytest.fixture
def bag(tmp_path):
    """A bag of a joint state, a clean chunk, one beyond a limit, and the guard's word on it."""
    written = Written(tmp_path / 'run')
    for seq, data in enumerate((chunk()['data'], moved(1, 19, 1.9))):
        stamp = time_msg(written.now_ns)
        state = JointState(name=list(NAMES), position=HOME.tolist())
        state.header.stamp = stamp
        written.add('/joint_states', state)
        message = ActionChunk(
            schema_version=1, session_id='s', seq=seq, observation_stamp=stamp, sent_stamp=stamp,
            valid_until=time_msg(written.now_ns + 10**9), period=duration_msg(0.05),
            control_mode=1, joint_names=list(NAMES), steps=20, data=np.ravel(data).tolist(),
        )
        message.header.stamp = stamp
        written.add('/action_chunk', message)
    written.add('/guard/violations', Violation(
        session_id='s', seq=1, rule='position', action=2, joint='fr3_joint2', sample=18, value=1.9,
        limit=1.7787, unit='rad', message='too far'))
    return written


def test_when_a_bag_is_explained_expect_what_the_guard_published(bag, capsys):
    assert guard_explain.main(['--bag', str(bag.close()), '--json']) == 1
    (report,) = json.loads(capsys.readouterr().out)
    (violation,) = report['violations']
    assert (report['session_id'], report['seq'], report['verdict']) == ('s', 1, 'clamped')
    assert (violation['joint'], violation['sample'], violation['value']) == ('fr3_joint2', 18, 1.9)


def test_when_a_bag_is_explained_for_a_robot_expect_its_chunks_judged(bag, capsys):
    folder = bag.close()
    assert guard_explain.main(['--bag', str(folder), '--robot', 'franka', '--json']) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert (report['seq'], report['verdict']) == (1, 'clamped')
    assert 'position' in {v['rule'] for v in report['violations']}
    (file,) = folder.glob('*.mcap')
    assert guard_explain.main(['--bag', str(file), '--robot', 'franka']) == 1
    assert '2 judged, 1 with something found' in capsys.readouterr().out


def test_when_a_bag_was_cut_expect_what_is_left_and_a_word_about_it(bag, capsys):
    bag.writer.flush()
    assert guard_explain.main(['--bag', str(bag.writer.folder)]) == 1
    assert 'was not closed' in capsys.readouterr().err


def test_when_a_bag_is_none_expect_exit_code_2_naming_it(tmp_path, capsys):
    (tmp_path / 'a.mcap').write_bytes(b'nothing')
    assert guard_explain.main(['--bag', str(tmp_path)]) == 2
    assert 'a.mcap: is no MCAP file' in capsys.readouterr().err


def run_guard(*arguments):
    return subprocess.run([sys.executable, '-m', 'vla_deploy.cli.guard', *arguments],
                          capture_output=True, text=True, check=False, timeout=60)


def test_when_guard_is_run_with_a_tool_expect_the_tool():
    done = run_guard('check_limits', '--robot', 'ur5')
    assert (done.returncode, done.stdout.splitlines()[0][:15]) == (0, 'ur5: 6 joints, ')


def test_when_guard_is_run_without_a_tool_expect_the_node_with_its_own_exit_code():
    done = run_guard('--ros-args', '-p', 'horizn_s:=1.0')
    assert done.returncode == 2
    assert "unknown parameter 'horizn_s'" in done.stderr


def test_when_guard_is_asked_for_help_expect_tools_and_parameters():
    done = run_guard('--help')
    assert done.returncode == 0
    assert 'guard explain' in done.stdout
    assert 'limits_path' in done.stdout


def test_when_a_tool_is_unknown_expect_exit_code_2_and_the_known_ones(capsys):
    assert guard.main(['explian']) == 2
    assert "unknown tool 'explian'; known: explain, check_limits" in capsys.readouterr().err


def test_when_a_tool_is_named_expect_its_exit_code(capsys):
    assert guard.main(['explain', '--bag', '/nowhere']) == 2
    assert guard.main(['check_limits', '--robot', 'ur3']) == 0
