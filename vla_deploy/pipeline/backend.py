# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a backend takes and supplies, and how one is chosen by name.

Backends live above the pipeline. They are imported by name and only when asked for, so that
serving with one needs none of the libraries of another.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_deploy.pipeline.bundle import Bundle

Float32 = NDArray[np.float32]
BACKENDS = {
    'onnx_runtime': 'vla_deploy.backends.onnx_runtime',
    'torch_cuda': 'vla_deploy.backends.torch_cuda',
    'stub': 'vla_deploy.backends.stub',
}


class ModelInputs(NamedTuple):
    """One observation as the prefix graph takes it, its fields named as the graph's inputs.

    images [slots, 3, height, width], image_mask [slots], tokens and token_mask [max_length], state
    [padded_dim].
    """

    images: Float32
    image_mask: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    token_mask: NDArray[np.bool_]
    state: Float32


class PolicyError(ValueError):
    """A policy cannot be served as asked; the message says what cannot be."""


class Backend(Protocol):
    """Computes a policy. Whatever surrounds it is the pipeline's and is the same for each.

    `emits_robot_units`: what the last step returns is already in robot units, so that it is not
    un-normalised.

    A backend that computes a chunk in one run has besides `whole(inputs, noise) -> chunk`, noise
    and chunk float32 [steps, padded_dim]; if it cannot take the steps apart, it has
    `takes_steps_apart = False`, and `prefix` and `step` raise PolicyError. One that computes
    several observations together has `several(observations, noise) -> chunks` for up to `batch` of
    them, each as for `whole`. One that holds a device has `close()`, which gives back what it
    holds there; nothing is asked of it afterwards.
    """

    emits_robot_units: bool

    def prefix(self, inputs: ModelInputs) -> Any:
        """Take in an observation; what is returned goes to `step` unseen.

        The arrays may be reused by the caller after the last step.
        """

    def step(
        self, prefix: Any, x: Float32, time_embedding: Float32, dt: np.float32, *continued: Any
    ) -> tuple[Float32, Float32]:
        """Return x + dt · velocity and velocity, both [steps, padded_dim] as x is.

        `continued`: nothing, or `prev_chunk` and `delay` as `guidance.continuation_inputs` gives
        them, where the contract reserves these inputs.
        """


@dataclasses.dataclass(frozen=True)
class BackendOptions:
    """How a backend is to compute. `threads`: None for as many as it likes. `stub_value`: what
    the stub returns for every joint, in robot units. `batch`: observations at most that are
    computed together."""

    provider: str = 'cpu'
    precision: str = 'fp32'
    variant: str = 'split'
    threads: int | None = None
    stub_value: float = 0.0
    batch: int = 1


def load_backend(name: str, bundle: Bundle, options: BackendOptions) -> Backend:
    """Load the named backend on a bundle.

    Raises PolicyError for an unknown name, a library that is not installed, or options that the
    backend cannot fulfil exactly: it never falls back to others.
    """
    if name not in BACKENDS:
        raise PolicyError(f'backend {name!r} is not one of {", ".join(BACKENDS)}')
    try:
        module = importlib.import_module(BACKENDS[name])
    except ImportError as error:
        raise PolicyError(f'backend {name} needs a library that is missing: {error}') from error
    require_threads(options.threads)
    backend: Backend = module.load(bundle, options)
    return backend


def require_threads(threads: int | None) -> None:
    """Raise PolicyError where a number of threads is given that is none."""
    if threads is not None and threads < 1:
        raise PolicyError(f'threads is {threads}, but must be at least 1')


def close_backend(backend: Backend) -> None:
    """Have a backend give back what it holds, if that is anything."""
    close = getattr(backend, 'close', None)
    if close is not None:
        close()


class Closed:
    """Stands where a backend was, which others may then not keep from going."""

    emits_robot_units = False

    def prefix(self, inputs: ModelInputs) -> Any:
        """Raise PolicyError."""
        raise PolicyError('the policy was closed: load it again')

    def step(
        self, prefix: Any, x: Float32, time_embedding: Float32, dt: np.float32, *continued: Any
    ) -> tuple[Float32, Float32]:
        """Raise PolicyError."""
        raise PolicyError('the policy was closed: load it again')


def require_single(options: BackendOptions, backend: str) -> None:
    """Raise PolicyError where several observations are to be computed together."""
    if options.batch != 1:
        raise PolicyError(
            f'batch {options.batch} is not possible with backend {backend}, which computes one '
            "observation at a time; choose backend torch_cuda with variant 'unrolled', or batch 1"
        )


def require(name: str, asked: str, possible: tuple[str, ...], backend: str) -> None:
    """Raise PolicyError unless the option `asked` is one that the backend can fulfil."""
    if asked not in possible:
        raise PolicyError(
            f'{name} {asked!r} is not possible with backend {backend}; '
            f'possible: {", ".join(possible)}'
        )
