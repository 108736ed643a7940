# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The process that draws: what it delivers, what it drops, how it fails."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe

import pytest

from vla_deploy.sim.image_process import CameraJob, ImageProcess, Views, serve_views
from vla_deploy.sim.render import RenderError

WAIT_S = 20.0
CAMERAS = (sys.executable, '-m', 'vla_deploy.nodes.sim_cameras')


class Receiver:
    """Collects deliveries; can hold the worker inside one."""

    def __init__(self):
        self.images = []
        self.open = threading.Event()
        self.open.set()
        self.inside = threading.Event()
        self.changed = threading.Condition()

    def __call__(self, camera, image, stamp_ns):
        self.inside.set()
        assert self.open.wait(WAIT_S)
        with self.changed:
            self.images.append((camera, image, stamp_ns))
            self.changed.notify_all()

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.images) >= count, WAIT_S)


@pytest.fixture
def receiver():
    return Receiver()


@pytest.fixture
def robot(make_robot):
    return make_robot()


@pytest.fixture
def job(robot, urdf_text):
    return CameraJob(urdf_text, robot.scene.config, 'cameras', '/', {'front': '/image/front'})


@pytest.fixture
def worker(job, receiver):
    """The simulation's end; a thread stands for the process, so that it can be held up."""
    ours, theirs = Pipe()
    thread = threading.Thread(target=serve_views, args=(theirs, job, receiver))
    thread.start()
    views = Views(ours)
    views.wait_until_ready()
    yield views
    receiver.open.set()
    ours.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def deliver_pending(worker):
    """As the simulation's ticks do."""
    end_s = time.monotonic() + WAIT_S
    while not worker.idle:
        assert not worker.error
        assert time.monotonic() < end_s


def test_when_a_view_is_offered_expect_its_image_with_the_view_s_stamp(robot, worker, receiver):
    view = robot.view()
    worker.offer(view)
    receiver.wait_for(1)
    camera, image, stamp_ns = receiver.images[0]
    assert (camera, stamp_ns) == ('front', view.stamp_ns)
    assert image.shape == (24, 32, 3)
    assert image.mean() > 40.0


def test_when_the_view_asks_for_black_expect_zeros_of_the_camera_s_size(robot, worker, receiver):
    robot.reset(0, black_images=True)
    worker.offer(robot.view())
    receiver.wait_for(1)
    image = receiver.images[0][1]
    assert image.shape == (24, 32, 3)
    assert not image.any()


def test_when_views_come_too_fast_expect_the_newest_drawn_and_the_others_reported(
    robot, worker, receiver
):
    receiver.open.clear()
    worker.offer(robot.view())
    assert receiver.inside.wait(WAIT_S)
    assert not worker.idle
    replaced = []
    for tick in range(1, 4):
        robot.advance(robot.time_ns + tick * 10_000_000)
        replaced.append(worker.offer(robot.view()))
    receiver.open.set()
    deliver_pending(worker)
    assert receiver.images[1][2] == robot.time_ns
    assert replaced == [False, True, True]


def test_when_a_view_is_discarded_expect_it_never_drawn(robot, worker, receiver):
    receiver.open.clear()
    worker.offer(robot.view())
    assert receiver.inside.wait(WAIT_S)
    robot.advance(robot.time_ns + 10_000_000)
    worker.offer(robot.view())
    worker.discard()
    robot.advance(robot.time_ns + 10_000_000)
    assert not worker.offer(robot.view())
    receiver.open.set()
    deliver_pending(worker)
    assert [stamp for _, _, stamp in receiver.images][1] == robot.time_ns


@pytest.fixture
def start(job):
    started = []

    def start(*words, **environment):
        given = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF', **environment}
        started.append(ImageProcess(words or CAMERAS, job, {**os.environ, **given}))
        return started[-1]

    yield start
    for process in started:
        process.stop()


def test_when_the_process_ends_expect_an_error_and_not_silence(start):
    images = start(sys.executable, '-c', 'raise SystemExit("broken")')
    with pytest.raises(RenderError, match='has ended: exit code 1'):
        images.wait_until_ready()


def test_when_it_ends_while_it_draws_expect_the_error_at_the_next_look(robot, start):
    images = start()
    images.wait_until_ready()
    images.offer(robot.view())
    deliver_pending(images)
    images._process.kill()
    images._process.wait()
    images.offer(robot.view())
    assert 'has ended: signal SIGKILL' in images.error
    assert not images.idle


def test_when_no_context_can_be_made_expect_the_reason(start):
    with pytest.raises(RenderError, match='MUJOCO_GL=disable; install its libraries'):
        start(MUJOCO_GL='disable').wait_until_ready()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_when_its_group_is_told_to_end_expect_it_to_wait_for_the_simulation(robot, start, number):
    images = start()
    images._process.send_signal(number)
    images.wait_until_ready()
    images._process.send_signal(number)
    images.offer(robot.view())
    deliver_pending(images)


def test_when_it_is_stopped_expect_no_process_left(robot, start):
    images = start()
    images.wait_until_ready()
    images.stop()
    assert images._process.returncode == 0


ORPHAN = """
import os, sys
from vla_deploy.sim.image_process import CameraJob, ImageProcess
from vla_deploy.sim.scene import CameraSize, SceneConfig
job = CameraJob(open(sys.argv[1]).read(), SceneConfig({'front': CameraSize(32, 24)}),
                'cameras', '/', {'front': '/image/front'})
images = ImageProcess([sys.executable, '-m', 'vla_deploy.nodes.sim_cameras'], job, os.environ)
images.wait_until_ready()
os.kill(os.getpid(), 9)
"""


def test_when_the_simulation_is_killed_expect_the_process_to_end_too(urdf_path):
    environment = {**os.environ, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}
    with subprocess.Popen(
        [sys.executable, '-c', ORPHAN, str(urdf_path)], stdout=subprocess.PIPE, env=environment
    ) as simulation:
        # Both hold the pipe's other end, so its end comes when both are gone.
        simulation.communicate(timeout=60)
    assert simulation.returncode == -signal.SIGKILL
