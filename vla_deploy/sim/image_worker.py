# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A thread that draws views of a scene and hands the images on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim.render import Renderer, RenderError
from vla_deploy.sim.robot import View
from vla_deploy.sim.scene import Scene

Deliver = Callable[[str, NDArray[np.uint8], int], None]

_START_TIMEOUT_S = 30.0


class ImageWorker:
    """Draws the newest view offered, every camera of it; one that waits may be replaced.

    `deliver(camera, image, stamp_ns)` is called in the worker's thread.
    """

    def __init__(self, scene: Scene, deliver: Deliver) -> None:
        self._scene = scene
        self._deliver = deliver
        self._condition = threading.Condition()
        self._pending: View | None = None
        self._drawing = False
        self._ready = False
        self._stopped = False
        self.error = ''
        self._thread = threading.Thread(target=self._run, name='images', daemon=True)

    def start(self) -> None:
        """Start the thread and wait for its OpenGL context; raises RenderError."""
        self._thread.start()
        with self._condition:
            self._condition.wait_for(lambda: self._ready or self.error, _START_TIMEOUT_S)
            if not self._ready:
                raise RenderError(self.error or f'no OpenGL context within {_START_TIMEOUT_S} s')

    @property
    def idle(self) -> bool:
        """Whether every view offered has been delivered."""
        with self._condition:
            return self._pending is None and not self._drawing

    def offer(self, view: View) -> bool:
        """Hand over a view; return whether it replaced one that still waited."""
        with self._condition:
            replaced = self._pending is not None
            self._pending = view
            self._condition.notify_all()
            return replaced

    def discard(self) -> None:
        """Drop the view that waits, if any."""
        with self._condition:
            self._pending = None

    def stop(self) -> None:
        """End the thread and wait for it."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=_START_TIMEOUT_S)

    def _run(self) -> None:
        try:
            with Renderer(self._scene) as renderer:
                with self._condition:
                    self._ready = True
                    self._condition.notify_all()
                while (view := self._next()) is not None:
                    self._draw(renderer, view)
        except RenderError as error:
            self.error = str(error)
        finally:  # whatever ended it, nobody may wait for images that never come
            with self._condition:
                if not self._stopped and not self.error:
                    self.error = 'the image thread broke down; its traceback is above'
                self._condition.notify_all()

    def _next(self) -> View | None:
        """Wait for a view; None when the worker is to end."""
        with self._condition:
            self._drawing = False
            self._condition.wait_for(lambda: self._stopped or self._pending is not None)
            if self._stopped:
                return None
            view, self._pending, self._drawing = self._pending, None, True
            return view

    def _draw(self, renderer: Renderer, view: View) -> None:
        for camera, size in self._scene.config.cameras.items():
            if view.black:
                image = np.zeros((size.height, size.width, 3), dtype=np.uint8)
            else:
                image = renderer.render(view.state, camera)
            self._deliver(camera, image, view.stamp_ns)
