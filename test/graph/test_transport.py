# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What running processes use to send."""

from pathlib import Path


def uses_shared_memory(pid):
    """Tell whether a process has memory of the middleware's mapped."""
    return '/dev/shm/fastrtps_' in Path(f'/proc/{pid}/maps').read_text()


def test_when_guard_and_robot_run_expect_shared_memory_used_by_the_cameras_alone(graph):
    robot, guard = graph.start_sim_robot(), graph.start_guard()
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard in control')
    (cameras,) = Path(f'/proc/{robot.pid}/task/{robot.pid}/children').read_text().split()
    used = {name: uses_shared_memory(pid) for name, pid in
            (('robot', robot.pid), ('guard', guard.pid), ('cameras', cameras))}  # fmt: skip
    assert used == {'robot': False, 'guard': False, 'cameras': True}
