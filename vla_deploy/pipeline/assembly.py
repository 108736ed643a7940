# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""One observation out of several streams: images and joint states that belong together.

Streams are bounded buffers; the payload of an image is kept undecoded, since most images are
never used. The slowest camera sets the moment: of the others the image nearest to its newest one is
taken, and the joint state nearest to the oldest of these, because the policy was trained on images
and states of the same moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NS_PER_S = 1e9
# 1 s of joint states at 1 kHz; older ones can match no image that is still fresh.
_STATES_KEPT = 1000
# Enough to find the partner of a camera that is this many times slower.
_IMAGES_KEPT = 8


class StreamError(ValueError):
    """A stream is missing, stale, from the future or out of step; the text names it and says how
    old it is."""


@dataclass(frozen=True)
class Assembled:
    """Parts of one observation; `stamp_ns` is the ROS time of the oldest part."""

    images: dict[str, Any]  # camera -> payload as it was added
    state: NDArray[np.float64]  # [joints] in the declared order
    stamp_ns: int


class ObservationAssembler:
    """Keeps the recent images of each camera and the recent joint states."""

    def __init__(
        self,
        image_max_age_s: Mapping[str, float],
        joint_state_max_age_s: float,
        max_skew_s: float,
    ) -> None:
        """Take the age beyond which an image is stale, for each camera. `max_skew_s`: how far the
        parts may be apart, and how far ahead of the present one may be stamped."""
        self._image_max_age_ns = {
            camera: int(age_s * _NS_PER_S) for camera, age_s in image_max_age_s.items()
        }
        self._state_max_age_ns = int(joint_state_max_age_s * _NS_PER_S)
        self._max_skew_ns = int(max_skew_s * _NS_PER_S)
        self._images: dict[str, deque[tuple[int, Any]]] = {
            camera: deque(maxlen=_IMAGES_KEPT) for camera in image_max_age_s
        }
        self._states: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=_STATES_KEPT)

    def add_image(self, camera: str, stamp_ns: int, payload: Any, now_ns: int) -> None:
        """Keep an image of a declared camera; one older than the newest is dropped."""
        self._add(self._images[camera], stamp_ns, payload, now_ns)

    def add_state(self, stamp_ns: int, position: NDArray[np.float64], now_ns: int) -> None:
        """Keep a joint state; one older than the newest is dropped."""
        self._add(self._states, stamp_ns, position, now_ns)

    def _add(
        self, held: deque[tuple[int, Any]], stamp_ns: int, payload: Any, now_ns: int
    ) -> None:
        # one from the future would shut out all others until its time comes
        while held and held[-1][0] - now_ns > self._max_skew_ns:
            held.pop()
        if not held or stamp_ns >= held[-1][0]:
            held.append((stamp_ns, payload))

    def clear(self) -> None:
        """Forget everything, as after a backward jump of the clock."""
        for held in self._images.values():
            held.clear()
        self._states.clear()

    def assemble(self, now_ns: int) -> Assembled:
        """Return an observation that is fresh and in step, or raise StreamError."""
        for camera, held in self._images.items():
            if not held:
                raise StreamError(f'image/{camera}: no image yet')
            self._check_age(
                f'image/{camera}', now_ns - held[-1][0], self._image_max_age_ns[camera]
            )
        if not self._states:
            raise StreamError('joint_states: no joint state yet')
        self._check_age('joint_states', now_ns - self._states[-1][0], self._state_max_age_ns)
        images = self._in_step()
        stamps = [stamp for stamp, _ in images.values()] or [self._states[-1][0]]
        oldest_ns, newest_ns = min(stamps), max(stamps)
        if newest_ns - oldest_ns > self._max_skew_ns:
            late = min(images, key=lambda camera: images[camera][0])
            raise StreamError(
                f'image/{late}: {(newest_ns - oldest_ns) / _NS_PER_S:.3f} s behind the other '
                f'cameras, more than {self._max_skew_ns / _NS_PER_S:.3f} s'
            )
        state_ns, state = _nearest(self._states, oldest_ns)
        if abs(state_ns - oldest_ns) > self._max_skew_ns:
            raise StreamError(
                f'joint_states: {abs(state_ns - oldest_ns) / _NS_PER_S:.3f} s away from the '
                f'images, more than {self._max_skew_ns / _NS_PER_S:.3f} s'
            )
        payloads = {camera: payload for camera, (_, payload) in images.items()}
        return Assembled(payloads, state, min(oldest_ns, state_ns))

    def _in_step(self) -> dict[str, tuple[int, Any]]:
        """Return an image of each camera, as near in time to one another as there are any."""
        if not self._images:
            return {}
        slowest_ns = min(held[-1][0] for held in self._images.values())
        return {camera: _nearest(held, slowest_ns) for camera, held in self._images.items()}

    def _check_age(self, stream: str, age_ns: int, max_age_ns: int) -> None:
        if age_ns > max_age_ns:
            raise StreamError(
                f'{stream}: newest message is {age_ns / _NS_PER_S:.3f} s old, '
                f'more than {max_age_ns / _NS_PER_S:.3f} s'
            )
        if -age_ns > self._max_skew_ns:
            raise StreamError(
                f'{stream}: newest message is stamped {-age_ns / _NS_PER_S:.3f} s in the future, '
                f'more than {self._max_skew_ns / _NS_PER_S:.3f} s; compare the clocks'
            )


def _nearest(held: deque[tuple[int, Any]], stamp_ns: int) -> tuple[int, Any]:
    return min(held, key=lambda item: abs(item[0] - stamp_ns))
