# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The thread that draws: what it delivers, what it drops, how it fails."""

import threading

import numpy as np
import pytest

from vla_deploy.sim.image_worker import ImageWorker
from vla_deploy.sim.render import RenderError

WAIT_S = 20.0


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
def worker(robot, receiver):
    worker = ImageWorker(robot.scene, receiver)
    worker.start()
    yield worker
    receiver.open.set()
    worker.stop()


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
    receiver.wait_for(2)
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
    receiver.wait_for(2)
    assert [stamp for _, _, stamp in receiver.images][1] == robot.time_ns


def test_when_drawing_breaks_down_expect_an_error_and_not_silence(robot, worker, receiver):
    view = robot.view()
    broken = type(view)(view.stamp_ns, None, False)
    kept, threading.excepthook = threading.excepthook, lambda _: None
    try:
        worker.offer(broken)
        worker._thread.join(WAIT_S)
    finally:
        threading.excepthook = kept
    assert 'broke down' in worker.error


def test_when_no_context_can_be_made_expect_start_to_raise_the_reason(
    robot, receiver, monkeypatch
):
    def refuse(_scene):
        raise RenderError('no EGL here')

    monkeypatch.setattr('vla_deploy.sim.image_worker.Renderer', refuse)
    with pytest.raises(RenderError, match='no EGL here'):
        ImageWorker(robot.scene, receiver).start()


def test_when_the_worker_has_ended_expect_no_thread_left(robot, receiver):
    worker = ImageWorker(robot.scene, receiver)
    worker.start()
    worker.offer(robot.view())
    receiver.wait_for(1)
    worker.stop()
    assert not worker._thread.is_alive()
    assert worker.error == ''
    assert np.array_equal(receiver.images[0][1].shape, (24, 32, 3))
