# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A robot whose policy runs on a GPU, and a GPU that has no room or is lost: where there is one."""

import importlib.util
import os
import pathlib
import signal

import pytest
from inference_waits import PATIENT, wait_for_reason

TASK = 'reach the red cube'
CAMERA = {'image_rate_hz': 15.0, 'image_width': 256, 'image_height': 256}
START_S = 300.0  # of a policy whose kernels are compiled and measured first
LEFT_BYTES = 64 << 20  # of the device's memory: less than any process needs there
LOSE = signal.SIGRTMIN  # LLVM, which compiles kernels, takes SIGUSR1 for itself

# Of the process of inference: a kernel that fails makes all that its process has there unusable.
LOSE_ON_SIGNAL = """
import os
import pathlib
import signal
import threading

def lose():
    import torch
    place = torch.zeros(1, device='cuda')
    try:
        place[torch.ones(1, dtype=torch.long, device='cuda')].cpu()
    except RuntimeError as error:
        pathlib.Path(os.environ['LOST']).write_text(str(error))

signal.signal(signal.SIGRTMIN, lambda *_: threading.Thread(target=lose).start())
"""


def has_gpu():
    if importlib.util.find_spec('torch') is None or not pathlib.Path('/dev/nvidiactl').exists():
        return False
    import torch

    return torch.cuda.is_available()


pytestmark = pytest.mark.skipif(not has_gpu(), reason='there is no NVIDIA GPU, or no torch for it')


@pytest.fixture
def robot(graph):
    """The simulated robot with its camera and an armed guard."""
    graph.start_sim_robot(**CAMERA)
    graph.start_guard(log_folder=str(graph.log_folder))
    graph.wait(lambda: graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    return graph


def start(robot, bundle, **parameters):
    return robot.start_inference(
        bundle, backend='torch_cuda', provider='cuda', precision='fp32', variant='unrolled',
        instruction=TASK, **PATIENT, **parameters,
    )  # fmt: skip


def test_when_the_device_is_lost_while_the_robot_moves_expect_degraded_and_the_guard_to_hold(
    robot, reach_bundle, tmp_path, monkeypatch
):
    (tmp_path / 'sitecustomize.py').write_text(LOSE_ON_SIGNAL)
    paths = [str(tmp_path), *filter(None, [robot.environment.get('PYTHONPATH')])]
    lost = tmp_path / 'lost'
    monkeypatch.setitem(robot.environment, 'PYTHONPATH', os.pathsep.join(paths))
    monkeypatch.setitem(robot.environment, 'LOST', str(lost))
    process = start(robot, reach_bundle)
    robot.wait(
        lambda: robot.guard.state_name == 'ARMED' or process.exit_code is not None,
        'the first plan', timeout_s=START_S,
    )  # fmt: skip
    assert process.exit_code is None, process.output()
    robot.wait_until_moving(0.05)
    process.send(LOSE)
    robot.wait(lost.exists, 'the device to be lost')
    wait_for_reason(robot, 'torch_cuda', 'nvidia-smi')
    robot.wait(lambda: robot.guard.state_name == 'HOLD', 'the end of the last plan')
    robot.wait_until_standing()
    assert process.exit_code is None
    assert not robot.excess().excess.any
    robot.check_audit_logs()


def test_when_the_device_has_no_room_expect_one_line_and_the_robot_to_stand(robot, reach_bundle):
    import torch

    torch.zeros(1, device='cuda')
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - LEFT_BYTES, dtype=torch.uint8, device='cuda')
    try:
        process = start(robot, reach_bundle)
        robot.wait(lambda: process.exit_code is not None, 'the process to end', timeout_s=START_S)
    finally:
        del taken
        torch.cuda.empty_cache()
    assert process.exit_code != 0
    (line,) = process.error_lines()
    assert 'memory' in line
    assert 'Traceback' not in process.output()
    assert robot.guard.state_name == 'HOLD'
    assert robot.chunks == []
