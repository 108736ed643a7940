# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The audit log of a guard that runs: whole however it ends, exact in replay, and its loss told."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fake_robot import FakeRobot
from fr3_motion import JOINTS, LIMITS, URDF, guard_parameters, sweep
from rclpy.lifecycle import TransitionCallbackReturn

from vla_deploy.core.audit_file import read_records, verify_log
from vla_deploy.core.journal import core_of, difference, read_genesis, read_journal, replay
from vla_deploy.nodes.guard import GuardNode
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_ns
from vla_deploy_msgs.msg import Violation

# A guard of this process: what it does to its process, it would do to the tests after it.
WITHIN = {'autostart': False, 'sched_fifo_priority': 0}


def the_log(folder: Path) -> Path:
    (log,) = folder.iterdir()
    return log


def test_when_the_guard_is_killed_while_moving_expect_its_log_whole_and_exact_in_replay(
    graph, tmp_path
):
    graph.start_sim_robot()
    guard = graph.start_guard(log_folder=str(tmp_path / 'logs'), log_rotate_bytes=40000)
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    graph.move()
    samples = sweep(graph.measured(), 0, 0.3, 1.0)
    samples[3, 2] = np.nan
    graph.publish_chunk(samples, model_sha256='c' * 64)
    graph.wait(lambda: graph.guard.chunks_refused == 1, 'a refusal')
    graph.wait(lambda: graph.guard.audit_records > 200, 'enough records for a second file')
    head = graph.guard.audit_head
    guard.kill()
    log = the_log(tmp_path / 'logs')
    result = verify_log(log, head)
    assert result.files > 1
    assert not result.closed
    genesis = read_genesis(log)
    assert set(genesis.files) == {str(URDF), str(LIMITS)}
    assert genesis.limits_sha256 == graph.guard.limits_sha256
    models = [r['model_sha256'] for _, r in read_records(log) if r.get('name') == 'model']
    assert models == ['c' * 64]
    steps = list(replay(core_of(genesis), read_journal(log)))
    assert [difference(step, out) for step, out in steps] == [''] * len(steps)
    commands = [out.trajectory for _, out in steps if out.trajectory is not None]
    logged = {command.position.tobytes() for command in commands}
    # What the thread of the log had not written yet died with the guard.
    heard = graph.trajectories[:len(commands) // 2]
    assert len(heard) > 20
    for trajectory in heard:
        positions = np.array([point.positions for point in trajectory.points])
        assert positions.tobytes() in logged
    assert {v.rule for _, out in steps for v in out.violations} == {'finite'}


def test_when_chunks_arrive_between_two_ticks_expect_the_first_judged_at_once(graph, tmp_path):
    period_s = 0.1
    FakeRobot(graph)
    graph.start_guard(log_folder=str(tmp_path / 'logs'), period_s=period_s, horizon_s=0.5,
                      tick_gap_s=1.0)
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    for _ in range(5):
        graph.publish_chunk(sweep(graph.measured(), 0, 0.0, 0.5))
    graph.wait(lambda: graph.guard.chunks_accepted == 5, 'five verdicts')
    judged = graph.guard.audit_records
    graph.wait(lambda: graph.guard.audit_records > judged + 5, 'some ticks after them')
    steps = list(read_journal(the_log(tmp_path / 'logs')))
    with_chunks = [i for i, step in enumerate(steps) if step.inputs.chunks]
    around = steps[max(with_chunks[0] - 2, 0):with_chunks[-1] + 4]
    assert sum(len(step.inputs.chunks) for step in around) == 5
    span_s = (around[-1].now_steady_ns - around[0].now_steady_ns) * 1e-9
    between_ticks = len(around) - 1 - round(span_s / period_s)
    # They may have come around a tick: the first before it and the first after it.
    assert 1 <= between_ticks <= 2


def test_when_the_guard_ends_on_sigint_expect_a_closed_log_with_its_lifecycle(graph, tmp_path):
    robot = FakeRobot(graph)
    guard = graph.start_guard(log_folder=str(tmp_path / 'logs'))
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    guard.send(signal.SIGINT)
    assert graph.wait_for_exit(guard) == 0
    robot.leave()
    log = the_log(tmp_path / 'logs')
    assert verify_log(log, graph.guard.audit_head).closed
    events = [r['name'] for _, r in read_records(log) if r['kind'] == 'event']
    assert events == ['activate', 'deactivate']
    assert f'audit log: {log}' in guard.output()


@pytest.mark.parametrize(('policy', 'state', 'action'), [
    ('fault', 'FAULT', Violation.ACTION_FAULT), ('continue', 'HOLD', Violation.ACTION_NOTED),
])
def test_when_the_log_cannot_be_written_expect_what_log_on_failure_says(
    graph, tmp_path, policy, state, action
):
    robot = FakeRobot(graph)
    parameters = {**guard_parameters(), 'log_folder': str(tmp_path), 'log_on_failure': policy}
    words = [f'-p{name}:={value}' for name, value in parameters.items() if name != 'joint_names']
    limited = (
        'import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000)); '
        'from vla_deploy.nodes.guard import main; sys.exit(main(sys.argv[1:]))'
    )
    words = [word for name in words for word in (name[:2], name[2:])]
    graph.run(sys.executable, '-c', limited, '--ros-args', *words,
              '-p', f'joint_names:=[{",".join(JOINTS)}]')
    graph.wait(lambda: graph.guard.audit_lost, 'records to be lost')
    graph.wait(lambda: graph.guard.state_name == state, state)
    graph.wait(lambda: any('File too large' in v.message for v in graph.violations), 'the loss')
    assert graph.violations[0].action == action
    log = next(p for p in tmp_path.iterdir() if p.name.startswith('guard_'))
    verify_log(log, graph.guard.audit_head)
    if policy == 'fault':
        assert 'File too large' in graph.guard.reason
        assert 'File too large' in graph.trigger('guard/reset').message
    robot.leave()


def test_when_the_log_folder_cannot_be_used_expect_configure_to_fail_naming_it(
    shared_graph, tmp_path
):
    (tmp_path / 'file').write_text('')
    given = {**guard_parameters(), **WITHIN, 'log_folder': str(tmp_path / 'file')}
    guard = shared_graph.add_node(GuardNode, **given)
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert guard.configure_error.startswith(f'audit log {tmp_path / "file"}/guard_')
        assert guard.configure_error.endswith('Not a directory')
    finally:
        shared_graph.remove_node(guard)


def test_when_the_bundle_is_known_expect_its_digest_in_the_genesis(
    shared_graph, reach_bundle, tmp_path
):
    given = {**guard_parameters(), **WITHIN, 'log_folder': str(tmp_path),
             'bundle': str(reach_bundle)}
    guard = shared_graph.add_node(GuardNode, **given)
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.SUCCESS
    finally:
        shared_graph.remove_node(guard)
    receipt = json.loads((reach_bundle / 'receipt.json').read_bytes())
    assert read_genesis(the_log(tmp_path)).model_sha256 == receipt['self_sha256']


@pytest.mark.parametrize(('content', 'said'), [
    (None, 'receipt.json: cannot be read'),
    (b'{"a": 1}', 'receipt.json: is not the receipt of a bundle: is not canonical'),
    (b'{"a":1}', "receipt.json: is not the receipt of a bundle: 'self_sha256'"),
    (b'[1]', 'receipt.json: is not the receipt of a bundle'),
])
def test_when_the_bundle_is_none_expect_configure_to_fail_naming_its_receipt(
    shared_graph, tmp_path, content, said
):
    if content is not None:
        (tmp_path / 'receipt.json').write_bytes(content)
    given = {**guard_parameters(), **WITHIN, 'bundle': str(tmp_path)}
    guard = shared_graph.add_node(GuardNode, **given)
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert said in guard.configure_error
    finally:
        shared_graph.remove_node(guard)


def test_when_a_guard_runs_expect_its_diagnostics_once_a_second_with_the_head_of_the_log(
    shared_graph, tmp_path
):
    heard = shared_graph.listen(DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)
    given = {**guard_parameters(), **WITHIN, 'log_folder': str(tmp_path)}
    guard = shared_graph.add_node(GuardNode, **given)
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.SUCCESS
        heard.clear()
        shared_graph.wait(lambda: len(heard) == 3, 'three diagnostics')
        stamps = [time_ns(message.header.stamp) for message in heard]
        assert stamps[2] - stamps[0] > 1_500_000_000
        values = {entry.key: entry.value for entry in heard[-1].status[0].values}
        verify_log(the_log(tmp_path), values['audit_head'])
        assert (values['audit_lost'], float(values['step_max_s']) > 0.0) == ('0', True)
    finally:
        shared_graph.remove_node(guard)


def test_when_there_is_no_log_folder_expect_no_log(shared_graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared_graph.guards.clear()
    guard = shared_graph.add_node(GuardNode, **{**guard_parameters(), **WITHIN})
    try:
        assert guard.trigger_configure() == TransitionCallbackReturn.SUCCESS
        shared_graph.wait(lambda: shared_graph.guard.limits_sha256, 'the status')
        assert shared_graph.guard.audit_head == ''
        assert list(tmp_path.iterdir()) == []
    finally:
        shared_graph.remove_node(guard)
