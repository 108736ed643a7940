# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""PyTorch on an NVIDIA GPU: fused kernels, replayed from CUDA graphs, on a bundle's own weights.

With provider `cpu` the same modules run in plain torch, for tests and for comparing; what is
asked for is what runs, or loading fails with one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_deploy.backends.cuda_graph import Captures
from vla_deploy.backends.device_errors import told
from vla_deploy.backends.fused_inputs import Bucket, Inputs, bring, buckets_of, put, size_of
from vla_deploy.backends.fused_policy import FusedPolicy
from vla_deploy.backends.parameters import BundleParameters
from vla_deploy.backends.quantised import CODES
from vla_deploy.backends.step_constants import PackedConstants, StepConstants
from vla_deploy.backends.torch_device import (
    Turn,
    finish,
    launch_early,
    make_ops,
    new_stream,
    own_stream,
    tune,
    turn_on,
)
from vla_deploy.backends.torch_requirements import (
    does_not_fit,
    require_gpu,
    require_new_chunks,
    require_options,
    require_sizes,
)
from vla_deploy.backends.torch_start import beside, make_policy
from vla_deploy.core.contract import Contract
from vla_deploy.pipeline.backend import BackendOptions, ModelInputs, PolicyError
from vla_deploy.pipeline.bundle import PARAMETERS, Bundle
from vla_deploy.pipeline.sampler import time_embeddings

Float32 = NDArray[np.float32]
Result = TypeVar('Result')
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16, fp8=torch.bfloat16)
MLP_DTYPES = {'fp8': CODES}  # of the language layers, where it is another one
MAX_KNOWN_TIMES = 64
NAME_LENGTH = 16  # of a digest, in a name
FAILED = 'torch_cuda: a chunk cannot be computed'


class TorchCudaBackend:
    """Keeps one prefix at a time; `prefix` invalidates what an earlier one returned.

    `batch`: observations at most that `several` computes together.
    """

    emits_robot_units = False

    def __init__(
        self, policy: FusedPolicy, contract: Contract, unrolled: bool,
        stream: torch.cuda.Stream | None, turn: Turn = nullcontext,
    ) -> None:
        """Put a policy behind the backend's interface.

        `unrolled`: a chunk is one graph, where no step has to be taken apart. `stream`: what CUDA
        graphs are captured on; without, the same kernels are launched one by one. `turn`: within
        what it returns the device computes.
        """
        self._policy, self._stream, self._turn = policy, stream, turn
        config, device, self.batch = policy.config, policy.device, len(policy.length)
        self._steps = time_embeddings(contract.time_embedding, contract.denoise_steps)
        self._captures = Captures(stream)
        # of the steps of one observation, which another thread captures
        self._step_captures = Captures(None if stream is None else new_stream())
        shape = (self.batch * config.chunk_size, config.max_action_dim)
        self._x = torch.zeros(shape, dtype=torch.float32, device=device)
        self._moved = torch.zeros_like(self._x)  # by the first step
        self._dt = torch.zeros(shape[1], dtype=torch.float32, device=device)
        self._own_dt = np.float32(-1.0 / contract.denoise_steps)
        self._cameras = len(contract.cameras)  # an empty slot takes no part
        self._inputs: dict[Bucket, Inputs] = {}
        self._runs: dict[tuple[str, Bucket | int | None], Callable[[], Any]] = {}
        self._launched: set[Bucket] = set()  # sizes whose kernels are all loaded
        self._constants: dict[bytes, PackedConstants] = {}
        self._current: PackedConstants | None = None  # of the step that is taken
        self._prefixes = 0
        if unrolled:
            self.whole, self.several = self._whole, self._several

    @torch.inference_mode()
    def prepare(self, arrive: Callable[[], None]) -> None:
        """Measure what kernels have not been, and make the graphs that serve when all cameras are
        there, for every length of a text. None of this needs the weights' values; `arrive`: see
        `serve`."""
        policy, counts = self._policy, sorted({1, self.batch})
        short = policy.shortest()
        sizes = [buckets_of(policy.config, self._cameras, count) for count in counts]
        constants = self._constants_of(self._steps[0]).views
        inputs = [self._inputs_of(bucket) for buckets in sizes for bucket in buckets]
        with beside(self._stream) as other:
            begun = other.run(self._begin, short, inputs, constants)
            for own in inputs:
                short.load_products(own)
            begun.result()
        for buckets in sizes:
            measured = tune(policy, short, self._inputs_of(buckets[-1]), constants, arrive)
            # the largest size has loaded all kernels, `launch_early` what others have of their own
            self._launched.update(buckets[-1:] if measured else buckets)
            for bucket in buckets:
                self._prefix_run(bucket)
                if hasattr(self, 'whole'):
                    self._chunk_run(bucket)
        self._step_run(self._steps[0])
        policy.ops.keep()

    def _begin(
        self, short: FusedPolicy, inputs: Sequence[Inputs], constants: StepConstants
    ) -> None:
        """Load kernels, and make the graphs of steps where these need no product, not even for
        their constants, and will not be measured anew."""
        if launch_early(short, inputs, constants) and not short.conditioned:
            if hasattr(self, 'whole'):
                self._later_run(1)
            self._step_run(self._steps[0])

    def close(self) -> None:
        """Give back all that is on the device; nothing can be computed afterwards."""
        on_gpu = self._policy.device.type == 'cuda'
        # graphs and methods refer to this in turn, which only a full collection would find
        vars(self).clear()
        if on_gpu:
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def renew_constants(self) -> None:
        """Compute anew, in place, what was made of weights before they were there."""
        if not self._policy.conditioned:
            return  # what is made of the time was made of parameters that were
        for embedding in self._steps:
            known = self._constants.get(embedding.tobytes())
            if known is not None:
                known.buffer.copy_(self._packed(self._policy.constants(embedding)).buffer)

    @told(FAILED)
    @torch.inference_mode()
    def prefix(self, inputs: ModelInputs) -> int:
        """Compute keys and values, which stay on the device; returns the prefix's number."""
        bucket, place = self._observed([inputs])
        run = self._prefix_run(bucket)
        with self._turn():
            place()
            run()
            finish(self._policy.device)
        self._prefixes += 1
        return self._prefixes

    @told(FAILED)
    @torch.inference_mode()
    def step(
        self, prefix: int, x: Float32, time_embedding: Float32, dt: np.float32
    ) -> tuple[Float32, Float32]:
        """Return x + dt · velocity and velocity; raises PolicyError for an earlier prefix."""
        if prefix != self._prefixes:
            raise PolicyError('the keys and values of this prefix have been overwritten')
        run = self._step_run(time_embedding)
        with self._turn():
            put(self._x_of(1), x)
            self._dt.fill_(float(dt))
            x_next, velocity = (result.cpu().numpy() for result in run())
        return x_next, velocity

    @told(FAILED)
    @torch.inference_mode()
    def _whole(self, inputs: ModelInputs, noise: Float32) -> Float32:
        return self._together([inputs], [noise])[0]

    @told(FAILED)
    @torch.inference_mode()
    def _several(
        self, observations: Sequence[ModelInputs], noise: Sequence[Float32]
    ) -> list[Float32]:
        cameras = [int(own.image_mask.sum()) for own in observations]
        chunks: dict[int, Float32] = {}
        for count in sorted(set(cameras)):
            group = [index for index, own in enumerate(cameras) if own == count]
            found = self._together([observations[i] for i in group], [noise[i] for i in group])
            chunks |= dict(zip(group, found, strict=True))
        return [chunks[index] for index in range(len(chunks))]

    def _together(
        self, observations: Sequence[ModelInputs], noise: Sequence[Float32]
    ) -> list[Float32]:
        """Return the chunks of observations with as many cameras each, in one run."""
        bucket, place = self._observed(observations)
        run = self._chunk_run(bucket)
        self._prefixes += 1
        x = self._x_of(bucket.observations).view(bucket.observations, -1, self._x.shape[1])
        with self._turn():
            place()
            for own, given in zip(x, noise, strict=False):
                put(own, given)
            self._dt.fill_(float(self._own_dt))
            chunks = run().view_as(x)[: len(noise)].cpu().numpy()
        return list(chunks)

    def _observed(
        self, observations: Sequence[ModelInputs]
    ) -> tuple[Bucket, Callable[[], None]]:
        """Bring images to the device; returns the size of the observations, and what brings the
        rest and puts all in its place."""
        policy = self._policy
        bucket = size_of(policy.config, observations, self.batch)
        fixed = bucket.cameras * policy.config.tokens_per_image + policy.state_rows
        return bucket, bring(observations, self._inputs_of(bucket), policy.length, fixed)

    def _x_of(self, count: int) -> Tensor:
        """Return the place of the actions of `count` observations."""
        return self._x[: self._rows(count)]

    def _rows(self, count: int) -> int:
        return count * self._policy.config.chunk_size

    def _inputs_of(self, bucket: Bucket) -> Inputs:
        """Return a bucket's inputs; its images lie where those of any other text do."""
        policy = self._policy
        if bucket not in self._inputs:
            known = [
                own for other, own in self._inputs.items()
                if other._replace(tokens=0) == bucket._replace(tokens=0)
            ]
            self._inputs[bucket] = Inputs.empty(
                policy.config, bucket, policy.dtype, policy.device,
                images=known[0].images if known else None,
            )
        return self._inputs[bucket]

    def _prefix_run(self, bucket: Bucket) -> Callable[[], None]:
        """Return what leaves the prefix's keys and values: where chunks come in one run, the graph
        that they begin with, whose first step leaves nothing that is read."""
        return self._run('first' if hasattr(self, 'whole') else 'prefix', bucket)

    def _chunk_run(self, bucket: Bucket) -> Callable[[], Tensor]:
        """Return the whole chunk: a graph of the prefix and the first step for a size, and one of
        the later steps, which is the same for all lengths of a text."""
        first, later = self._run('first', bucket), self._later_run(bucket.observations)

        def run() -> Tensor:
            first()
            return later()

        return run

    def _run(self, what: str, bucket: Bucket) -> Callable[[], None]:
        """Return the prefix, alone or with the first step, for a size, captured at its first use.

        With the first step the prefix launches every kernel that it launches alone.
        """
        if (what, bucket) not in self._runs:
            inputs, policy = self._inputs_of(bucket), self._policy
            constants = self._constants_of(self._steps[0]).views
            rows = self._rows(bucket.observations)
            x, moved = self._x[:rows], self._moved[:rows]

            def prefix() -> None:
                policy.prefix(inputs)

            def first() -> None:
                moved.copy_(policy.prefix_and_first_step(inputs, x, self._dt, constants)[0])

            length = policy.length.clone()
            policy.length.fill_(policy.config.tokens_per_image * bucket.cameras + 1)
            rehearsal = first if hasattr(self, 'whole') else prefix
            self._runs[what, bucket] = self._captures.of(
                first if what == 'first' else prefix,
                None if bucket in self._launched else rehearsal,
            )
            self._launched.add(bucket)
            policy.length.copy_(length)
        return self._runs[what, bucket]

    def _later_run(self, count: int) -> Callable[[], Tensor]:
        """Return the steps behind the first, of `count` observations."""
        if ('later', count) not in self._runs:
            moved = self._moved[: self._rows(count)]
            constants = [self._constants_of(embedding).views for embedding in self._steps[1:]]
            # without any, a copy: what is returned is the caller's
            self._runs['later', count] = self._captured_steps(
                lambda: self._policy.steps(moved, self._dt, constants), count
            ) if constants else moved.clone
        return self._runs['later', count]

    def _step_run(self, embedding: Float32) -> Callable[[], tuple[Tensor, Tensor]]:
        """Return one Euler step at a time; one graph serves every time."""
        constants = self._constants_of(embedding)
        if self._current is None:
            self._current = current = self._packed(constants.views)
            self._runs['step', None] = self._captured_steps(
                lambda: self._policy.step(self._x_of(1), self._dt, current.views), 1
            )
        target, run = self._current.buffer, self._runs['step', None]

        def step() -> tuple[Tensor, Tensor]:
            target.copy_(constants.buffer)
            moved: tuple[Tensor, Tensor] = run()
            return moved

        return step

    def _constants_of(self, embedding: Float32) -> PackedConstants:
        key = embedding.tobytes()
        if key not in self._constants:
            if len(self._constants) >= len(self._steps) + MAX_KNOWN_TIMES:
                self._constants.pop(next(reversed(self._constants)))  # not one of a graph
            self._constants[key] = self._packed(self._policy.constants(embedding))
        return self._constants[key]

    def _packed(self, constants: StepConstants) -> PackedConstants:
        return PackedConstants(constants, self._policy.device)

    def _captured_steps(self, steps: Callable[[], Result], count: int) -> Callable[[], Result]:
        if count == 1 and not self._policy.conditioned:  # nothing is left to cuBLAS
            return self._step_captures.of(steps, multiplies=False)
        return self._captures.of(steps)


def load(bundle: Bundle, options: BackendOptions) -> TorchCudaBackend:
    """Load a bundle's parameters; raises PolicyError for what cannot be fulfilled."""
    require_options(options, tuple(DTYPES))
    require_new_chunks(bundle)
    unrolled = options.variant == 'unrolled'
    device, precision = torch.device(options.provider), options.precision
    on_gpu = device.type == 'cuda'
    if on_gpu:
        require_gpu(precision)
        device = torch.device('cuda', torch.cuda.current_device())  # of all threads
    elif options.threads is not None:
        torch.set_num_threads(options.threads)
    with told(f'{bundle.path}: cannot be loaded'):
        try:
            with own_stream(on_gpu) as stream:
                return _load(bundle, precision, device, unrolled, stream, options.batch)
        except torch.OutOfMemoryError as error:
            raise PolicyError(
                f'{bundle.path}: {does_not_fit(precision, options.batch)}'
            ) from error


@torch.inference_mode()
def _load(
    bundle: Bundle, precision: str, device: torch.device, unrolled: bool,
    stream: torch.cuda.Stream | None, batch: int,
) -> TorchCudaBackend:
    dtype, variant = DTYPES[precision], 'unrolled' if unrolled else 'split'
    sizes, cameras = bundle.receipt['files'].get(PARAMETERS, ''), len(bundle.contract.cameras)
    name = f'{sizes[:NAME_LENGTH]}_{cameras}_{precision}_{batch}_{variant}'
    ops = make_ops(device, dtype, name)
    source = BundleParameters(bundle, device)
    try:
        if device.type == 'cuda':
            require_sizes(source.config)
        mlp_dtype = MLP_DTYPES.get(precision)
        policy = make_policy(source, dtype, ops, batch, cameras, stream, mlp_dtype)
        return serve(policy, bundle.contract, unrolled, stream, source.finish)
    except BaseException:
        source.drop()
        raise
    finally:
        source.finish()


def serve(
    policy: FusedPolicy, contract: Contract, unrolled: bool, stream: torch.cuda.Stream | None,
    arrive: Callable[[], None],
) -> TorchCudaBackend:
    """Return the backend of a policy, with kernels measured and graphs made on the stream that is
    the current one, where there is one.

    `arrive` returns when all weights are there; until then they are read beside what is done.
    """
    backend = TorchCudaBackend(policy, contract, unrolled, stream, turn_on(policy.device))
    try:
        if stream is not None:
            backend.prepare(arrive)
        arrive()
        backend.renew_constants()
    except BaseException:  # an interruption as well
        backend.close()
        raise
    if stream is not None:
        torch.cuda.empty_cache()
    return backend
