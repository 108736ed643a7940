# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Drawing in a process of its own, as a real robot's cameras have theirs, and both ends of the pipe
to it.

The middleware sends all that a process publishes under one lock, so an image that its reader does
not take would hold up the joint states.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim.mujoco_loader import SimulatorMissingError
from vla_deploy.sim.render import Renderer, RenderError
from vla_deploy.sim.robot import View
from vla_deploy.sim.scene import Scene, SceneConfig, SceneError

Deliver = Callable[[str, NDArray[np.uint8], int], None]

_START_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 5.0
_DONE = ''  # what the process answers when it is ready, and to each view; else why it ended


@dataclasses.dataclass(frozen=True)
class CameraJob:
    """What the process draws, and where to: `topics` has the full name for each camera."""

    urdf_text: str
    scene: SceneConfig
    node: str
    namespace: str
    topics: Mapping[str, str]


class Views:
    """The simulation's end: hands over the newest view; one that waits may be replaced."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pending: View | None = None
        self._drawing = True  # until it is ready
        self.error = ''

    def wait_until_ready(self) -> None:
        """Wait for the OpenGL context; raises RenderError."""
        if not self._connection.poll(_START_TIMEOUT_S):
            raise RenderError(f'the process that draws was not ready in {_START_TIMEOUT_S:g} s')
        self.poll()
        if self.error:
            raise RenderError(self.error)

    def poll(self) -> None:
        """Take the answers that have come and hand over the view that waits. Blocks
        only where the process is ending, until it has."""
        try:
            while not self.error and self._connection.poll():
                self.error = self._connection.recv()
                self._drawing = False
            if self._pending is not None and not self._drawing and not self.error:
                self._connection.send(self._pending)
                self._pending, self._drawing = None, True
        except (EOFError, OSError):
            self.error = self._how_it_ended()

    def _how_it_ended(self) -> str:
        return 'the process that draws has ended'

    @property
    def idle(self) -> bool:
        """Whether every view offered has been delivered."""
        self.poll()
        return self._pending is None and not self._drawing

    def offer(self, view: View) -> bool:
        """Hand over a view; return whether it replaced one that still waited."""
        self.poll()
        replaced = self._pending is not None
        self._pending = view
        self.poll()
        return replaced

    def discard(self) -> None:
        """Drop the view that waits, if any."""
        self._pending = None


class ImageProcess(Views):
    """The process and the simulation's end of the pipe to it.

    It ends when that is closed. SIGINT and SIGTERM, which reach a whole group, are blocked there.
    """

    def __init__(
        self, words: Sequence[str], job: CameraJob, environment: Mapping[str, str]
    ) -> None:
        """Start `words`, which gets two file descriptors as its last arguments: the pipe's, and
        that of a file with the job. Raises OSError."""
        ours, theirs = Pipe()
        super().__init__(ours)
        with theirs, tempfile.TemporaryFile() as file:
            pickle.dump(job, file)
            file.seek(0)
            numbers = theirs.fileno(), file.fileno()
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
            try:
                self._process = subprocess.Popen(
                    [*words, *map(str, numbers)], pass_fds=numbers, env=dict(environment)
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _how_it_ended(self) -> str:
        self._wait()
        code = self._process.returncode
        how = f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
        return f'{super()._how_it_ended()}: {how}'

    def stop(self) -> None:
        """End the process and wait for it."""
        self._connection.close()
        self._wait()

    def _wait(self) -> None:
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve_views(connection: Connection, job: CameraJob, deliver: Deliver) -> None:
    """Draw every camera of each view that comes, until the simulation closes its end.

    `deliver(camera, image, stamp_ns)` is called for each image, before the answer.
    """
    with contextlib.suppress(EOFError, ConnectionError):  # the simulation has ended
        try:
            _draw(connection, Scene(job.urdf_text, job.scene), deliver)
        except (RenderError, SceneError, SimulatorMissingError) as error:
            connection.send(str(error))


def _draw(connection: Connection, scene: Scene, deliver: Deliver) -> None:
    with Renderer(scene) as renderer:
        connection.send(_DONE)
        while True:
            view: View = connection.recv()
            for camera, size in scene.config.cameras.items():
                if view.black:
                    image = np.zeros((size.height, size.width, 3), dtype=np.uint8)
                else:
                    image = renderer.render(view.state, camera)
                deliver(camera, image, view.stamp_ns)
            connection.send(_DONE)
