# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What starts a bring-up's processes under the launch stack: one after another where one is to
become ready."""

import subprocess
import sys

import pytest

pytest.importorskip('launch.actions', reason='the launch stack of ROS 2 is not installed')

LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from vla_deploy.bringup import Process
import vla_deploy.ros.launch as ours
timeout_s, first = float(sys.argv[1]), sys.argv[2]
ours.READY_TIMEOUT_S = timeout_s
processes = [Process('first', (sys.executable, '-c', first), {}, 'is ready'),
             Process('second', (sys.executable, '-c', 'print("second runs")'), {})]
service = LaunchService()
service.include_launch_description(LaunchDescription(ours.starting(processes)))
sys.exit(service.run())
"""
WAITS = 'import signal, sys; signal.signal(signal.SIGINT, lambda *_: sys.exit()); '


def launched(first, timeout_s=30.0):
    done = subprocess.run(
        [sys.executable, '-c', LAUNCH, str(timeout_s), first], capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_when_the_first_says_that_it_is_ready_expect_the_second_started_behind(stream):
    says = ''.join(
        f"print('{piece}', end='', flush=True, file=sys.{stream}); "
        for piece in ('is re', r'ady\n')
    )
    said = launched(WAITS + says + 'signal.pause()')
    assert said.index('is re') < said.index('second runs')
    assert said.count('second runs') == 1


def test_when_the_first_is_not_ready_in_time_expect_it_named_and_the_second_not_started():
    said = launched(WAITS + "print('not yet', flush=True); signal.pause()", timeout_s=0.5)
    assert 'first was not ready within 0.5 s' in said
    assert 'second runs' not in said


def test_when_the_first_ends_before_it_is_ready_expect_the_end_and_the_second_not_started():
    said = launched('raise SystemExit(2)')
    assert 'exit code 2' in said
    assert 'second runs' not in said
