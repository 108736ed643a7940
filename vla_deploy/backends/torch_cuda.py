# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""PyTorch on an NVIDIA GPU: fused kernels, replayed from CUDA graphs, on a bundle's own weights.

With provider `cpu` the same modules run in plain torch, for tests and for comparing; what is
asked for is what runs, or loading fails with one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_deploy.backends.cuda_graph import Captured, new_pool
from vla_deploy.backends.device_errors import told
from vla_deploy.backends.fused_policy import (
    Bucket,
    Config,
    FusedPolicy,
    Inputs,
    StepConstants,
    bucket_of,
)
from vla_deploy.backends.parameters import BundleParameters
from vla_deploy.backends.torch_ops import Ops, TorchOps
from vla_deploy.backends.tuning import cache_path, load_tuning
from vla_deploy.core.contract import Contract
from vla_deploy.models.expert import expert_sizes
from vla_deploy.models.smolvla import SmolVLAConfig
from vla_deploy.pipeline.backend import BackendOptions, PolicyError, require
from vla_deploy.pipeline.bundle import Bundle
from vla_deploy.pipeline.sampler import time_embeddings

Float32 = NDArray[np.float32]
Result = TypeVar('Result')
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
PROVIDERS = ('cuda', 'cpu')
VARIANTS = ('split', 'unrolled')
OLDEST_CAPABILITY = (8, 0)  # bf16 on tensor cores
OVERLAP_CAPABILITY = (9, 0)  # programmatic dependent launch
FIRST = -1  # of a stream: high priority
MAX_KNOWN_TIMES = 64
FAILED = 'torch_cuda: a chunk cannot be computed'
SMALLEST_HEAD, COLUMNS, MOST_ROWS = 32, 16, 128  # what the kernels' blocks divide


class TorchCudaBackend:
    """Keeps one prefix at a time; `prefix` invalidates what an earlier one returned."""

    emits_robot_units = False

    def __init__(
        self, policy: FusedPolicy, contract: Contract, unrolled: bool,
        stream: torch.cuda.Stream | None,
    ) -> None:
        """Put a policy behind the backend's interface.

        `unrolled`: a chunk is one graph, where no step has to be taken apart. `stream`: what CUDA
        graphs are captured on; without, the same kernels are launched one by one.
        """
        self._policy, self._stream = policy, stream
        config, device = policy.config, policy.device
        self._steps = time_embeddings(contract.time_embedding, contract.denoise_steps)
        self._pool = None if stream is None else new_pool()
        shape = (config.chunk_size, config.max_action_dim)
        self._x = torch.zeros(shape, dtype=torch.float32, device=device)
        self._dt = torch.zeros(shape[1], dtype=torch.float32, device=device)
        self._own_dt = np.float32(-1.0 / contract.denoise_steps)
        self._inputs: dict[Bucket, Inputs] = {}
        self._runs: dict[tuple[str, Bucket | bytes], Callable[[], Any]] = {}
        self._constants: dict[bytes, StepConstants] = {}
        self._prefixes = 0
        if unrolled:
            self.whole = self._whole

    @torch.inference_mode()
    def prepare(self) -> None:
        """Measure what kernels have not been, and make the graphs that serve when all cameras are
        there, for every length of a text."""
        config = self._policy.config
        largest = bucket_of(config, config.camera_slots, config.max_tokens)
        tune(self._policy, self._inputs_of(largest), self._constants_of(self._steps[0]))
        for tokens in range(1, config.max_tokens + 1):
            bucket = bucket_of(config, config.camera_slots, tokens)
            self._run('prefix', bucket)
            if hasattr(self, 'whole'):
                self._run('whole', bucket)
        for embedding in self._steps:
            self._step_run(embedding)

    @told(FAILED, RuntimeError)
    @torch.inference_mode()
    def prefix(
        self,
        images: Float32,
        image_mask: NDArray[np.bool_],
        tokens: NDArray[np.int64],
        token_mask: NDArray[np.bool_],
        state: Float32,
    ) -> int:
        """Compute keys and values, which stay on the device; returns the prefix's number."""
        bucket = self._fill(images, image_mask, tokens, token_mask, state)
        self._run('prefix', bucket)()
        self._prefixes += 1
        return self._prefixes

    @told(FAILED, RuntimeError)
    @torch.inference_mode()
    def step(
        self, prefix: int, x: Float32, time_embedding: Float32, dt: np.float32
    ) -> tuple[Float32, Float32]:
        """Return x + dt · velocity and velocity; raises PolicyError for an earlier prefix."""
        if prefix != self._prefixes:
            raise PolicyError('the keys and values of this prefix have been overwritten')
        self._put(self._x, x)
        self._dt.fill_(float(dt))
        x_next, velocity = self._step_run(time_embedding)()
        return x_next.cpu().numpy(), velocity.cpu().numpy()

    @told(FAILED, RuntimeError)
    @torch.inference_mode()
    def _whole(
        self,
        images: Float32,
        image_mask: NDArray[np.bool_],
        tokens: NDArray[np.int64],
        token_mask: NDArray[np.bool_],
        state: Float32,
        noise: Float32,
    ) -> Float32:
        bucket = self._fill(images, image_mask, tokens, token_mask, state)
        self._prefixes += 1
        self._put(self._x, noise)
        self._dt.fill_(float(self._own_dt))
        chunk: Float32 = self._run('whole', bucket)().cpu().numpy()
        return chunk

    def _fill(
        self,
        images: Float32,
        image_mask: NDArray[np.bool_],
        tokens: NDArray[np.int64],
        token_mask: NDArray[np.bool_],
        state: Float32,
    ) -> Bucket:
        """Bring what the policy looks at to the device."""
        config, count = self._policy.config, int(token_mask.sum())
        bucket = bucket_of(config, int(image_mask.sum()), count)
        inputs = self._inputs_of(bucket)
        self._put(inputs.images, images if image_mask.all() else images[image_mask])
        padded = np.zeros(bucket.tokens, np.int64)
        padded[:count] = tokens[token_mask]
        self._put(inputs.tokens, padded)
        self._put(inputs.state[0], state)
        self._policy.length.fill_(
            bucket.cameras * config.tokens_per_image + count + self._policy.state_rows
        )
        return bucket

    def _inputs_of(self, bucket: Bucket) -> Inputs:
        """Return a bucket's inputs; its images lie where those of any other text do."""
        policy = self._policy
        if bucket not in self._inputs:
            known = [own for other, own in self._inputs.items() if other.cameras == bucket.cameras]
            self._inputs[bucket] = Inputs.empty(
                policy.config, bucket, policy.dtype, policy.device,
                images=known[0].images if known else None,
            )
        return self._inputs[bucket]

    def _put(self, target: Tensor, value: NDArray[Any]) -> None:
        """Copy to the device, and convert there."""
        target.copy_(torch.from_numpy(np.ascontiguousarray(value)).to(target.device))

    def _run(self, what: str, bucket: Bucket) -> Callable[[], Any]:
        """Return the prefix or the whole chunk for a size, captured at its first use."""
        if (what, bucket) not in self._runs:
            inputs, policy = self._inputs_of(bucket), self._policy
            constants = [self._constants_of(embedding) for embedding in self._steps]

            def prefix() -> None:
                policy.prefix(inputs)

            def steps(later: list[StepConstants]) -> Tensor:
                x, _ = policy.prefix_and_first_step(inputs, self._x, self._dt, constants[0])
                for own in later:
                    x, _ = policy.step(x, self._dt, own)
                return x

            length = policy.length.clone()
            policy.length.fill_(policy.config.tokens_per_image * bucket.cameras + 1)
            if what == 'prefix':
                self._runs[what, bucket] = self._captured(prefix, prefix)
            else:
                self._runs[what, bucket] = self._captured(
                    lambda: steps(constants[1:]), lambda: steps(constants[1:2])
                )
            policy.length.copy_(length)
        return self._runs[what, bucket]

    def _step_run(self, embedding: Float32) -> Callable[[], tuple[Tensor, Tensor]]:
        """Return one Euler step at a time: a graph for the times of the contract."""
        key = embedding.tobytes()
        if ('step', key) not in self._runs:
            constants, policy = self._constants_of(embedding), self._policy

            def step() -> tuple[Tensor, Tensor]:
                return policy.step(self._x, self._dt, constants)

            if not any(np.array_equal(embedding, own) for own in self._steps):
                return step
            known = any(what == 'step' for what, _ in self._runs)
            self._runs['step', key] = self._captured(step, None if known else step)
        return self._runs['step', key]

    def _constants_of(self, embedding: Float32) -> StepConstants:
        key = embedding.tobytes()
        if key not in self._constants:
            if len(self._constants) >= MAX_KNOWN_TIMES:
                self._constants.pop(next(reversed(self._constants)))
            self._constants[key] = self._policy.constants(embedding)
        return self._constants[key]

    def _captured(
        self, function: Callable[[], Result], rehearsal: Callable[[], Any] | None
    ) -> Callable[[], Result]:
        if self._stream is None:
            return function
        return Captured(function, rehearsal, self._pool, self._stream)


def load(bundle: Bundle, options: BackendOptions) -> TorchCudaBackend:
    """Load a bundle's parameters; raises PolicyError for what cannot be fulfilled."""
    require('provider', options.provider, PROVIDERS, 'torch_cuda')
    require('precision', options.precision, tuple(DTYPES), 'torch_cuda')
    require('variant', options.variant, VARIANTS, 'torch_cuda')
    if bundle.contract.reserved_inputs:
        raise PolicyError(
            f'{bundle.path}: the policy continues its previous chunk, which backend torch_cuda '
            "does not compute: use 'onnx_runtime'"
        )
    device, dtype = torch.device(options.provider), DTYPES[options.precision]
    on_gpu = device.type == 'cuda'
    if on_gpu:
        _require_gpu()
    elif options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        with own_stream(on_gpu) as stream:
            return _load(bundle, dtype, device, options.variant == 'unrolled', stream)
    except torch.OutOfMemoryError as error:
        free, total = (value / 2**30 for value in torch.cuda.mem_get_info())
        raise PolicyError(
            f'{bundle.path}: does not fit at {options.precision} on {torch.cuda.get_device_name()}'
            f' ({free:.1f} of {total:.1f} GiB free); stop what else uses it, or choose bf16'
        ) from error


@contextmanager
def own_stream(on_gpu: bool) -> Iterator[torch.cuda.Stream | None]:
    """Let a new stream be the current one: what is read, measured and captured on one stream
    shares its workspace. What is captured on it goes before what runs beside it."""
    if not on_gpu:
        yield None
        return
    stream = torch.cuda.Stream(priority=FIRST)
    with torch.cuda.stream(stream):
        yield stream
    torch.cuda.synchronize()


@torch.inference_mode()
def _load(
    bundle: Bundle, dtype: torch.dtype, device: torch.device, unrolled: bool,
    stream: torch.cuda.Stream | None,
) -> TorchCudaBackend:
    source = BundleParameters(bundle, device)
    try:
        if device.type == 'cuda':
            require_sizes(source.config)
        policy = FusedPolicy(source.config, source, dtype, make_ops(device, dtype))
    finally:
        source.close()
    return serve(policy, bundle.contract, unrolled, stream)


def serve(
    policy: FusedPolicy, contract: Contract, unrolled: bool, stream: torch.cuda.Stream | None
) -> TorchCudaBackend:
    """Return the backend of a policy, with kernels measured and graphs made on the stream that is
    the current one, where there is one."""
    backend = TorchCudaBackend(policy, contract, unrolled, stream)
    if stream is not None:
        backend.prepare()
        torch.cuda.empty_cache()
    return backend


@torch.inference_mode()
def tune(policy: FusedPolicy, inputs: Inputs, constants: StepConstants) -> None:
    """Measure the kernels whose sizes no table knows for this card, and keep what was found.
    `inputs`: of the largest size."""
    config, device = policy.config, policy.device
    images = config.camera_slots * config.tokens_per_image
    policy.length.fill_(images + config.max_tokens + policy.state_rows)
    x = torch.randn(config.chunk_size, config.max_action_dim, device=device)
    dt = torch.zeros(config.max_action_dim, device=device)

    def run() -> None:
        policy.prefix_and_first_step(inputs, x, dt, constants)
        policy.prefix(inputs)
        policy.step(x, dt, constants)

    ops: Any = policy.ops
    ops.tune(run, lambda: policy.step(x, dt, constants))
    if ops.tuning.changed:
        ops.tuning.save(cache_path(torch.cuda.get_device_name(), policy.dtype))


def require_sizes(config: Config) -> None:
    """Raise PolicyError, which names the size, for a model that the kernels are not made for."""
    if isinstance(config, SmolVLAConfig):
        _, mlp = expert_sizes(config.text, config.expert_width_multiplier)
    else:
        mlp = config.expert.intermediate_size
    head = config.text.head_dim
    for good, what in (
        (head >= SMALLEST_HEAD and head & (head - 1) == 0,
         f'head_dim is {head}, but must be a power of 2, at least {SMALLEST_HEAD}'),
        (mlp % COLUMNS == 0, f"the expert's MLP has {mlp} features, not a multiple of {COLUMNS}"),
        (config.chunk_size < MOST_ROWS,
         f'chunk_size is {config.chunk_size}, but must be below {MOST_ROWS}'),
    ):
        if not good:
            raise PolicyError(f'backend torch_cuda on a GPU: {what}; choose backend onnx_runtime')


def make_ops(device: torch.device, dtype: torch.dtype) -> Ops:
    """Return the operations for a device; raises PolicyError where Triton is missing."""
    if device.type != 'cuda':
        return TorchOps()
    try:
        from vla_deploy.backends.triton_ops import TritonOps
    except ImportError as error:
        raise PolicyError(
            f'backend torch_cuda needs Triton ({error}); install the triton that fits torch '
            f'{torch.__version__}'
        ) from error
    overlap = torch.cuda.get_device_capability() >= OVERLAP_CAPABILITY
    tuning = load_tuning(torch.cuda.get_device_name(), dtype)
    return TritonOps(device, dtype, tuning, overlap)


def _require_gpu() -> None:
    """Raise PolicyError, which says what to do, unless there is a GPU that can serve."""
    if torch.version.cuda is None:
        raise PolicyError(
            f'torch {torch.__version__} is built without CUDA; install a CUDA build of torch, or '
            "choose provider 'cpu'"
        )
    try:
        torch.cuda.init()
        capability = torch.cuda.get_device_capability()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PolicyError(
            f'no NVIDIA GPU can be used: {reason}; check nvidia-smi and the driver, or choose '
            "provider 'cpu'"
        ) from error
    if capability < OLDEST_CAPABILITY:
        raise PolicyError(
            f'{torch.cuda.get_device_name()} has compute capability {capability}, but '
            f'{OLDEST_CAPABILITY} is needed; choose another backend'
        )
