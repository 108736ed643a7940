# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The processes of a bring-up: ended in order, and nothing of them left behind."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vla_deploy import supervisor
from vla_deploy.bringup import Process
from vla_deploy.shared_memory import SETTLED_S, SHARED_MEMORY
from vla_deploy.supervisor import Supervisor

WAITS = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(print('ends')))
print('up', flush=True)
signal.pause()
"""
HARD_OF_HEARING = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); "
    'signal.pause()'
)
DEAF = 'import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); ' + HARD_OF_HEARING


def process(name: str, program: str, ready: str = '') -> Process:
    return Process(name, (sys.executable, '-c', program), {}, ready)


def until(holds: Callable[[], object]) -> None:
    end_s = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def wait_for(output: io.StringIO, *lines: str) -> None:
    until(lambda: all(line in output.getvalue() for line in lines))


@contextmanager
def fifo() -> Iterator[str]:
    """A named pipe; who reads it waits until this ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'pipe')
        os.mkfifo(path)
        yield path
        Path(path).write_text('')


def test_when_a_bring_up_ends_expect_the_last_started_to_end_first():
    output = io.StringIO()
    running = Supervisor([process('first', WAITS), process('second', WAITS)], output)
    wait_for(output, '[first] up', '[second] up')
    assert running.poll() == ''
    assert running.end() == []
    assert output.getvalue().splitlines()[-2:] == ['[second] ends', '[first] ends']


def test_when_a_process_ends_by_itself_expect_its_name_and_how():
    output = io.StringIO()
    running = Supervisor([process('guard', 'raise SystemExit(3)'), process('robot', WAITS)], output)
    wait_for(output, '[robot] up')
    running.running['guard'].wait()
    assert running.poll() == 'guard ended by itself: exit code 3'
    running.running['robot'].kill()
    running.end()


def test_when_a_process_is_to_become_ready_expect_those_behind_it_to_wait_for_its_word():
    output = io.StringIO()
    program = "print('soon', flush=True); open({!r}).read(); " + WAITS
    with fifo() as path:
        running = Supervisor([process('recorder', program.format(path), 'up'),
                              process('robot', WAITS)], output)  # fmt: skip
        wait_for(output, '[recorder] soon')
        assert running.poll() == ''
        assert list(running.running) == ['recorder']
    wait_for(output, '[recorder] up')
    until(lambda: not running.poll() and len(running.running) == 2)
    wait_for(output, '[robot] up')
    assert running.end() == []


def test_when_a_process_is_not_ready_in_time_expect_it_named_and_nothing_started(monkeypatch):
    monkeypatch.setattr(supervisor, 'READY_TIMEOUT_S', 0.2)
    running = Supervisor([process('recorder', WAITS, 'never said'), process('robot', WAITS)],
                         io.StringIO())  # fmt: skip
    until(running.poll)
    assert running.poll() == 'recorder was not ready within 0.2 s'
    assert list(running.running) == ['recorder']
    running.end()


def test_when_a_process_ends_before_it_is_ready_expect_its_exit_code_and_nothing_started():
    running = Supervisor([process('recorder', 'raise SystemExit(2)', 'up'),
                          process('robot', WAITS)], io.StringIO())  # fmt: skip
    until(running.poll)
    assert running.poll() == 'recorder ended by itself: exit code 2'
    assert list(running.running) == ['recorder']
    running.end()


def test_when_a_process_is_killed_expect_the_signal_named():
    running = Supervisor([process('robot', WAITS)], io.StringIO())
    running.running['robot'].kill()
    running.running['robot'].wait()
    assert running.poll() == 'robot ended by itself: signal SIGKILL'
    running.end()


def test_when_a_process_does_not_end_expect_it_killed_and_named(monkeypatch):
    monkeypatch.setattr(supervisor, 'END_TIMEOUT_S', 0.5)
    output = io.StringIO()
    running = Supervisor([process('deaf', DEAF)], output)
    wait_for(output, '[deaf] up')
    assert running.end() == ['deaf']
    assert running.running['deaf'].returncode == -9


def test_when_an_interrupt_gets_lost_expect_the_process_told_again_and_not_killed(monkeypatch):
    monkeypatch.setattr(supervisor, 'END_TIMEOUT_S', 3.0)
    output = io.StringIO()
    running = Supervisor([process('starting', HARD_OF_HEARING)], output)
    wait_for(output, '[starting] up')
    assert running.end() == []
    assert running.running['starting'].returncode == -signal.SIGTERM


def test_when_one_does_not_end_expect_those_before_it_to_have_their_time_all_the_same(monkeypatch):
    monkeypatch.setattr(supervisor, 'END_TIMEOUT_S', 0.5)
    output = io.StringIO()
    running = Supervisor([process('recorder', WAITS), process('deaf', DEAF)], output)
    wait_for(output, '[recorder] up', '[deaf] up')
    assert running.end() == ['deaf']
    assert '[recorder] ends' in output.getvalue()


def test_when_brought_up_expect_each_a_group_in_our_session_so_that_niceness_counts():
    output = io.StringIO()
    running = Supervisor([process('robot', WAITS)], output)
    wait_for(output, '[robot] up')
    pid = running.running['robot'].pid
    assert (os.getsid(pid), os.getpgid(pid)) == (os.getsid(0), pid)
    running.end()


def test_when_one_command_is_not_there_expect_it_named_and_nothing_behind_it_started():
    output = io.StringIO()
    running = Supervisor([process('first', WAITS), Process('none', ('/no/such/program',), {}),
                          process('last', WAITS)], output)  # fmt: skip
    wait_for(output, '[first] up')
    for _ in range(2):
        assert running.poll() == (
            "none cannot be started: [Errno 2] No such file or directory: '/no/such/program'"
        )
    assert list(running.running) == ['first']
    assert running.end() == []


def test_when_the_output_is_full_expect_the_processes_read_all_the_same_and_it_said_once(capsys):
    program = "print(('x' * 99 + '\\n') * 3000 + 'up', flush=True); " + WAITS
    with open('/dev/full', 'w') as output:
        running = Supervisor([process('guard', program, 'up'), process('robot', WAITS)], output)
        until(lambda: not running.poll() and len(running.running) == 2)
        assert running.end() == []
        assert 'No space left on device' in running.output_problem
        with contextlib.suppress(OSError):
            output.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f'supervisor: {running.output_problem}'


def test_when_a_bring_up_ends_expect_what_killed_nodes_left_in_shared_memory_gone():
    segment, port = f'fastrtps_test{os.getpid()}', f'fastrtps_port{10_000 + os.getpid()}'
    paths = [SHARED_MEMORY / name for name in (segment, f'{segment}_el', port, f'{port}_el')]
    for path in paths:
        path.write_bytes(b'left')
        old_s = time.time() - 2 * SETTLED_S
        os.utime(path, (old_s, old_s))
    Supervisor([process('robot', 'pass')], io.StringIO()).end()
    assert [path.name for path in paths if path.exists()] == []


SLOW_IMPORT = """
import signal
print('reads', flush=True)
signal.pause()
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_when_a_node_is_ended_while_its_modules_are_read_expect_no_traceback(tmp_path, number):
    (tmp_path / 'rclpy.py').write_text(SLOW_IMPORT)
    environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}:{os.environ.get("PYTHONPATH", "")}'}
    with subprocess.Popen(
        [sys.executable, '-m', 'vla_deploy.nodes.sim_cameras'],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as node:  # fmt: skip
        assert node.stdout.readline() == 'reads\n'
        node.send_signal(number)
        assert node.communicate(timeout=30) == ('', None)
    assert node.returncode == 0
