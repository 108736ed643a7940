# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What killed nodes leave in shared memory is given back, and nothing else is touched."""

import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vla_deploy.shared_memory import (
    SETTLED_S,
    SHARED_MEMORY,
    remove_stale_ports,
    remove_stale_segments,
)

NODE = """
import rclpy, sys, time
rclpy.init()
node = rclpy.create_node('held')
print('up', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    """A folder as /dev/shm, in which `make` puts a segment and its lock, old enough to judge."""

    def make(name):
        (tmp_path / name).write_bytes(b'segment')
        lock = tmp_path / f'{name}_el'
        lock.touch()
        old_s = time.time() - 2 * SETTLED_S
        for path in (tmp_path / name, lock):
            os.utime(path, (old_s, old_s))
        return lock

    tmp_path.joinpath('other').touch()
    return tmp_path, make


def names(path):
    return sorted(p.name for p in path.iterdir())


def test_when_no_process_holds_the_lock_expect_segment_and_lock_removed(folder):
    path, make = folder
    make('fastrtps_0123')
    assert remove_stale_segments(path) == ['fastrtps_0123']
    assert names(path) == ['other']


def test_when_a_process_holds_the_lock_expect_it_kept(folder):
    path, make = folder
    with make('fastrtps_0123').open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_stale_segments(path) == []
    assert names(path) == ['fastrtps_0123', 'fastrtps_0123_el', 'other']


def test_when_the_lock_is_new_expect_it_kept(folder):
    path, make = folder
    os.utime(make('fastrtps_0123'))
    assert remove_stale_segments(path) == []


def test_when_no_process_maps_a_port_expect_all_of_it_removed(folder):
    path, make = folder
    make('fastrtps_port7000')
    (path / 'sem.fastrtps_port7000_mutex').touch()
    assert remove_stale_segments(path) == []
    assert remove_stale_ports(path) == ['fastrtps_port7000']
    assert names(path) == ['other']


def test_when_a_process_maps_a_port_expect_it_kept(folder):
    path, make = folder
    make('fastrtps_port7000')
    with (path / 'fastrtps_port7000').open('rb') as port:
        mapped = mmap.mmap(port.fileno(), 0, access=mmap.ACCESS_READ)
    assert remove_stale_ports(path) == []
    assert names(path) == ['fastrtps_port7000', 'fastrtps_port7000_el', 'other']
    mapped.close()
    assert remove_stale_ports(path) == ['fastrtps_port7000']


def test_when_a_process_unseen_here_reads_from_a_port_expect_it_kept(folder, tmp_path_factory):
    path, make = folder
    none_listed = tmp_path_factory.mktemp('proc')
    with make('fastrtps_port7000').open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_stale_ports(path, none_listed) == []
    assert remove_stale_ports(path, none_listed) == ['fastrtps_port7000']


def test_when_a_port_is_new_expect_it_kept(folder):
    path, make = folder
    make('fastrtps_port7000')
    os.utime(path / 'fastrtps_port7000')
    assert remove_stale_ports(path) == []


def test_when_a_node_is_killed_expect_its_real_segment_removed_and_a_living_ones_kept(tmp_path):
    before = segments()
    killed, killed_names = started(before)
    living, living_names = started(before | killed_names)
    assert killed_names
    assert living_names
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    try:
        for name in killed_names | living_names:
            old_s = time.time() - 2 * SETTLED_S
            os.utime(SHARED_MEMORY / f'{name}_el', (old_s, old_s))
        removed = set(remove_stale_segments())
        assert killed_names <= removed
        assert not living_names & removed
        assert living_names <= segments()
    finally:
        living.communicate('', timeout=30)


def segments() -> set[str]:
    return {
        p.name.removesuffix('_el')
        for p in SHARED_MEMORY.glob('fastrtps_*_el')
        if 'port' not in p.name
    }


def started(before: set[str]) -> tuple[subprocess.Popen, set[str]]:
    """Start a node; return it and the names of the segments it holds open."""
    process = subprocess.Popen(
        [sys.executable, '-c', NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'up\n'
    mapped = Path(f'/proc/{process.pid}/maps').read_text()
    return process, {name for name in segments() - before if f'/{name}\n' in mapped}
