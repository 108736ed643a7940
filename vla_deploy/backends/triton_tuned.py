# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels launched as they were measured to be fastest on a card, and kept once they are compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from vla_deploy.backends.kept_kernels import KeptKernels
from vla_deploy.backends.triton_identity import tell_by_files
from vla_deploy.backends.triton_kept import open_kept
from vla_deploy.backends.triton_launch import Launcher
from vla_deploy.backends.triton_tuning import Recorded, compiled, measure_each, refine
from vla_deploy.backends.tuning import Config, Tuning

Result = TypeVar('Result')


class TunedLauncher(Launcher):
    """Launches kernels by what is known of a card, and measures what is not."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, tuning: Tuning, overlap: bool, policy: str
    ) -> None:
        """`overlap`: kernels start while the one before still runs (Hopper and later). `policy`: a
        name for what launches them, under which they are kept; see `triton_kept`."""
        super().__init__(overlap)
        self.tuning = tuning
        self._device, self._dtype = device, dtype
        self._recorded: dict[str, Recorded] | None = None
        self._unmeasured = False  # something was launched that has no configuration
        self._kept: KeptKernels | None = None
        index = device.index
        if device.type == 'cuda' and index is None:  # another thread's current one may differ
            index = torch.cuda.current_device()
        self._index = index
        self._woken = ThreadPoolExecutor(1).submit(self._wake, policy, index)

    def awake(self) -> None:
        """See Ops."""
        self._woken.result()

    def keep(self) -> None:
        """See Ops."""
        if self._kept is not None:
            self._kept.save()

    def measured(self, run: Callable[[], Any]) -> bool:
        """See Ops."""
        self._unmeasured = False
        run()
        return not self._unmeasured

    def tune(
        self, run: Callable[[], Any], step: Callable[[], Any], quiet: Callable[[], None]
    ) -> None:
        """Time every candidate of every kernel that `run` calls and whose sizes have none yet,
        in a CUDA graph over all its calls; then the best few of each within a whole `step`,
        where kernels overlap with others. `quiet` is called before something is timed."""
        used = set() if self._kept is None else set(self._kept.used)
        recorded = self._record(run)
        missing = {key: found for key, found in recorded.items() if not self.tuning.knows(key)}
        quiet()
        self._compile_only = True
        built = compiled(missing, self._dtype, self._index)
        self._compile_only = False
        measure_each(missing, built, self.tuning)
        refine([key for key in self._record(step) if key in missing], step, self.tuning)
        # what was tried is not kept
        self._compiled.clear()
        if self._kept is not None:
            self._kept.used = used

    def _record(self, run: Callable[[], Any]) -> dict[str, Recorded]:
        self._recorded = {}
        run()
        recorded, self._recorded = self._recorded, None
        return recorded

    def _wake(self, policy: str, index: int | None) -> None:
        """Load what was compiled before, on a GPU of that index."""
        if index is not None:
            tell_by_files()
            self._kept = kept = open_kept(policy, index)
            self._find = kept.launch_of

    def _call(
        self, kind: str, sizes: tuple[int, ...], launch: Callable[[Config], Result]
    ) -> Result:
        key = '-'.join([kind, *map(str, sizes)])
        known = self.tuning.knows(key)
        self._unmeasured |= not known
        if self._recorded is not None:
            found = self._recorded.setdefault(key, Recorded(kind, sizes, []))
            if not known:  # a call holds on to all that it reads and writes
                found.calls.append(launch)
        return launch(self.tuning.get(key, kind, sizes, self._dtype))
