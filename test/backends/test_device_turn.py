# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Turns on a device: one at a time of all processes, whatever becomes of those."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from vla_deploy.backends.device_turn import DeviceTurn

LONG_S, PATIENCE_S = 60.0, 1.0
ADDS, PROCESSES = 300, 3
ADD = """
import os, sys
from vla_deploy.backends.device_turn import DeviceTurn
turn, path = DeviceTurn(sys.argv[1], 60.0), sys.argv[2]
for _ in range(int(sys.argv[3])):
    with turn.taken() as came:
        assert came
        with open(path) as file:
            value = int(file.read())
        os.sched_yield()
        with open(path, 'w') as file:
            file.write(str(value + 1))
"""
HOLD = """
import signal, sys
from vla_deploy.backends.device_turn import DeviceTurn
with DeviceTurn(sys.argv[1]).taken() as came:
    print(came, flush=True)
    signal.pause()
"""


@pytest.fixture
def device(request):
    """Return the name of a device that no other test has."""
    return f'{os.getpid()}/{request.node.name}'


@pytest.fixture
def holder(device):
    """Return a process that has the turn."""
    process = subprocess.Popen([sys.executable, '-c', HOLD, device], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b'True\n'
    yield process
    process.kill()
    process.communicate()


def wait_s(turn):
    """Return for how long a turn that another has is waited for."""
    begin_s = time.monotonic()
    with turn.taken() as came:
        assert not came
        return time.monotonic() - begin_s


def test_when_processes_read_and_write_in_turns_expect_nothing_of_them_lost(device, tmp_path):
    path = tmp_path / 'sum'
    path.write_text('0')
    command = [sys.executable, '-c', ADD, device, str(path), str(ADDS)]
    processes = [subprocess.Popen(command) for _ in range(PROCESSES)]
    assert [process.wait() for process in processes] == [0] * PROCESSES
    assert int(path.read_text()) == ADDS * PROCESSES


def test_when_a_process_does_not_end_its_turn_expect_others_to_go_on(device, holder):
    os.kill(holder.pid, signal.SIGSTOP)
    with DeviceTurn(device, 0.01).taken() as came:
        assert not came


def test_when_a_process_has_stopped_expect_it_waited_for_once_until_a_turn_comes_again(device):
    turn, other = DeviceTurn(device, PATIENCE_S), DeviceTurn(device)
    with other.taken():
        first_s, second_s = wait_s(turn), wait_s(turn)
        assert first_s >= PATIENCE_S
        assert second_s < 0.5 * first_s
    with turn.taken() as came:
        assert came
    with other.taken():
        assert wait_s(turn) >= PATIENCE_S


def test_when_a_process_dies_in_its_turn_expect_the_turn_of_the_next(device, holder):
    holder.kill()
    with DeviceTurn(device, LONG_S).taken() as came:
        assert came


@pytest.mark.usefixtures('holder')
def test_when_devices_have_other_names_expect_turns_of_their_own(device):
    with DeviceTurn(f'{device} 2', 0.0).taken() as came:
        assert came


def test_when_one_without_the_turn_ends_expect_it_still_taken(device):
    turn = DeviceTurn(device, 0.0)
    with turn.taken() as outer:
        for _ in range(2):
            with turn.taken() as inner:
                assert (outer, inner) == (True, False)
    with turn.taken() as came:
        assert came
