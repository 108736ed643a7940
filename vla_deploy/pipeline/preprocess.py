# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""From a checked observation to the tensors that the prefix graph takes."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.pipeline.backend import ModelInputs
from vla_deploy.pipeline.images import Resizer
from vla_deploy.pipeline.native import resize_function
from vla_deploy.pipeline.normalize import VectorNormalizer
from vla_deploy.pipeline.observation import CheckedObservation, ObservationError
from vla_deploy.pipeline.tokenize import Prompt, PromptEncoder

MAX_KEPT_SIZES = 16


class ImageStack:
    """The image input of the prefix graph, filled anew for each observation.

    Cameras that are there come first, in the contract's order. Slots that stay empty hold
    `value_low` and are masked. Only what an image covers is written; a slot is wiped when
    something of another size takes it.
    """

    def __init__(self, contract: Contract, threads: int = 1) -> None:
        """Raises CompileError where the compiled image code cannot be had."""
        resize_function()  # here, since sizes are known with the first images only
        rule = contract.image
        self._threads = threads
        self._helpers = ThreadPoolExecutor(max(threads - 1, 1), thread_name_prefix='preprocess')
        shape = (contract.camera_slots, 3, rule.height, rule.width)
        self._rule = rule
        self._images = np.full(shape, rule.value_low, np.float32)
        self._size_in_slot: list[tuple[int, int] | None] = [None] * contract.camera_slots
        # a resizer owns its buffers, so each slot has its own
        self._resizers: dict[tuple[int, int, int], Resizer] = {}

    def fill(
        self, images: Sequence[NDArray[np.uint8]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the images and their mask; the images are overwritten by the next call.

        Raises ObservationError for an image that has no pixel left after the resize.
        """
        jobs: list[Callable[[], None]] = []
        for slot in range(len(self._images)):
            image = images[slot] if slot < len(images) else None
            size = None if image is None else (image.shape[0], image.shape[1])
            if size != self._size_in_slot[slot]:
                self._images[slot].fill(self._rule.value_low)
                self._size_in_slot[slot] = None
            if image is not None and size is not None:
                jobs += self._resizer(slot, *size).jobs(image, self._images[slot])
                self._size_in_slot[slot] = size
        self._run(jobs)
        return self._images, np.arange(len(self._images)) < len(images)

    def _run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Run the jobs in all threads, this one among them; one that wakes late is not waited for,
        since the others take its jobs."""
        left = collections.deque(jobs)
        helpers = min(self._threads, len(jobs)) - 1
        helped = [self._helpers.submit(_run_all, left) for _ in range(helpers)]
        _run_all(left)
        for future in helped:
            if not future.cancel():
                future.result()

    def _resizer(self, slot: int, height: int, width: int) -> Resizer:
        key = (slot, height, width)
        if key not in self._resizers:
            if len(self._resizers) >= MAX_KEPT_SIZES:
                self._resizers.clear()
            try:
                self._resizers[key] = Resizer(height, width, self._rule, bands=self._threads)
            except ValueError as error:
                raise ObservationError(f'image: {error}') from error
        return self._resizers[key]


def _run_all(left: collections.deque[Callable[[], None]]) -> None:
    while True:
        try:
            job = left.popleft()
        except IndexError:  # another thread may take the last one at any time
            return
        job()


class Preprocessor:
    """Turns observations into model inputs by the rules of a contract."""

    def __init__(
        self,
        contract: Contract,
        encoder: PromptEncoder,
        state_normalizer: VectorNormalizer,
        threads: int = 1,
    ) -> None:
        self._stack = ImageStack(contract, threads)
        self._encoder = encoder
        self._state_normalizer = state_normalizer

    def __call__(self, observation: CheckedObservation) -> tuple[ModelInputs, Prompt]:
        """Return the model inputs, whose images are overwritten by the next call, and the prompt
        that their tokens are of."""
        images, image_mask = self._stack.fill(observation.images)
        state = self._state_normalizer.normalize_padded(observation.state)
        prompt = self._encoder(observation.instruction, state[: len(observation.state)])
        return ModelInputs(images, image_mask, prompt.ids, prompt.mask, state), prompt
