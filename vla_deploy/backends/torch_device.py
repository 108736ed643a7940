# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the torch backend has of a device: its stream, its operations, and their measuring."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vla_deploy.backends.device_turn import DeviceTurn
from vla_deploy.backends.fused_inputs import Inputs
from vla_deploy.backends.fused_policy import FusedPolicy
from vla_deploy.backends.step_constants import StepConstants
from vla_deploy.backends.torch_ops import Ops, TorchOps
from vla_deploy.backends.tuning import cache_path, keep_tuning, load_tuning
from vla_deploy.pipeline.backend import PolicyError

OVERLAP_CAPABILITY = (9, 0)  # programmatic dependent launch
HOPPER, WORKSPACE = (9, 0), ':4096:4'  # KiB and how often: 16 MiB
FIRST = -1  # of a stream: high priority
Turn: TypeAlias = Callable[[], AbstractContextManager[object]]


def limit_workspace() -> None:
    """Let products have half the memory of their own that torch gives them on Hopper, with which
    those of a policy take as long: there is one piece for each stream, and a small policy is not
    much larger. On other cards torch may give them less than that. A process that has said
    otherwise, or has multiplied before, keeps what it has."""
    if torch.cuda.get_device_capability() == HOPPER:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', WORKSPACE)


def new_stream() -> torch.cuda.Stream:
    """Return a stream; what is captured on it goes before what runs beside it."""
    return torch.cuda.Stream(priority=FIRST)


@contextmanager
def own_stream(on_gpu: bool) -> Iterator[torch.cuda.Stream | None]:
    """Let a new stream be the current one: what is read, measured and captured on one stream
    shares its workspace."""
    if not on_gpu:
        yield None
        return
    limit_workspace()
    stream = new_stream()
    with torch.cuda.stream(stream):
        yield stream
    torch.cuda.synchronize()


def turn_on(device: torch.device) -> Turn:
    """Return what to compute within on a device: in turns with all other processes on a GPU."""
    if device.type != 'cuda':
        return nullcontext
    return DeviceTurn(str(torch.cuda.get_device_properties(device).uuid)).taken


def finish(device: torch.device) -> None:
    """Wait for all that was begun on the current stream."""
    if device.type == 'cuda':
        torch.cuda.current_stream(device).synchronize()


@torch.inference_mode()
def tune(
    policy: FusedPolicy, short: FusedPolicy, inputs: Inputs, constants: StepConstants,
    quiet: Callable[[], None],
) -> bool:
    """Launch all kernels, and where some were not measured on this card in their sizes, measure
    them, and keep what was found. `short`: the policy's shortest; `inputs`: of the largest size,
    of one observation or of as many as go together; `quiet` is called before something is measured.
    Returns whether something was: kernels of other sizes, too, may then be launched otherwise than
    they were before."""
    config, count = policy.config, len(inputs.state)
    images = len(inputs.images) // count * config.tokens_per_image
    policy.length.fill_(images + config.max_tokens + policy.state_rows)
    x, dt = _actions(policy, count)

    def run(own: FusedPolicy) -> None:
        own.prefix_and_first_step(inputs, x, dt, constants)
        if count == 1 and own.has_state_token:  # alone, as steps that are taken apart have it
            own.prefix(inputs)
        own.step(x, dt, constants)

    ops: Any = policy.ops
    if ops.measured(lambda: run(short)):
        return False
    x.normal_()  # what multiplies zeros takes less power
    ops.tune(lambda: run(policy), lambda: policy.step(x, dt, constants), quiet)
    run(short)  # what was chosen
    keep_tuning(ops.tuning, cache_path(torch.cuda.get_device_name(), policy.dtype))
    return True


def launch_early(short: FusedPolicy, sizes: Sequence[Inputs], constants: StepConstants) -> bool:
    """Launch kernels of a policy's shortest, which loads them, once Triton can tell what it
    compiled before: those of a step of one observation, and of the prefix in all sizes. Multiplies
    nothing. Returns whether those of a step were measured on this card."""
    short.ops.awake()
    x, dt = _actions(short, 1)
    known = short.ops.measured(lambda: short.step(x, dt, constants))
    for own in sizes:
        short.load_kernels(own)
    return known


def _actions(policy: FusedPolicy, count: int) -> tuple[Tensor, Tensor]:
    """Return some actions of so many observations, and the length of a step."""
    config = policy.config
    x = torch.zeros(count * config.chunk_size, config.max_action_dim, device=policy.device)
    return x, torch.zeros(x.shape[1], device=x.device)


def make_ops(device: torch.device, dtype: torch.dtype, policy: str = 'any') -> Ops:
    """Return the operations for a device; raises PolicyError where Triton is missing. `policy`: a
    name for what calls them, under which compiled kernels are kept."""
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
    return TritonOps(device, dtype, tuning, overlap, policy)
