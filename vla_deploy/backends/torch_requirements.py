# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the torch backend can be asked for, and what it needs of a GPU and of a model's sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vla_deploy.backends.fused_inputs import Config
from vla_deploy.backends.quantised import MULTIPLE, fits
from vla_deploy.models.expert import expert_sizes
from vla_deploy.models.smolvla import SmolVLAConfig
from vla_deploy.pipeline.backend import BackendOptions, PolicyError, require
from vla_deploy.pipeline.bundle import Bundle

PROVIDERS = ('cuda', 'cpu')
VARIANTS = ('split', 'unrolled')
MOST_OBSERVATIONS = 32  # whose elements a kernel can count
OLDEST_CAPABILITY = (8, 0)  # bf16 on tensor cores
OLDEST_OF_PRECISION = {'fp8': (8, 9)}  # on tensor cores
SMALLER = {'fp32': 'bf16', 'fp16': 'fp8', 'bf16': 'fp8'}  # the precision with fewer bits
SMALLEST_HEAD, COLUMNS, MOST_ROWS = 32, 16, 128  # what the kernels' blocks divide


def require_options(options: BackendOptions, precisions: Sequence[str]) -> None:
    """Raise PolicyError, which names the option and what it can be."""
    require('provider', options.provider, PROVIDERS, 'torch_cuda')
    require('precision', options.precision, tuple(precisions), 'torch_cuda')
    require('variant', options.variant, VARIANTS, 'torch_cuda')
    if not 1 <= options.batch <= (MOST_OBSERVATIONS if options.variant == 'unrolled' else 1):
        raise PolicyError(
            f'batch {options.batch} is not possible with backend torch_cuda; possible: 1 to '
            f"{MOST_OBSERVATIONS} with variant 'unrolled', 1 with 'split'"
        )


def require_new_chunks(bundle: Bundle) -> None:
    """Raise PolicyError for a policy that continues the chunk before."""
    if bundle.contract.reserved_inputs:
        raise PolicyError(
            f'{bundle.path}: the policy continues its previous chunk, which backend torch_cuda '
            "does not compute: use 'onnx_runtime'"
        )


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


def require_8_bits(name: str, rows: int, columns: int) -> None:
    """Raise PolicyError, which names the weight, unless its products can be taken in 8 bits: on any
    provider, so that a policy is not held to a rounding that does not serve."""
    if not fits(rows, columns):
        raise PolicyError(
            f"precision 'fp8' is not possible: {name} is {rows} × {columns}, and both sizes must "
            f"be multiples of {MULTIPLE}; choose 'bf16'"
        )


def require_gpu(precision: str) -> None:
    """Raise PolicyError, which says what to do, unless there is a GPU that can serve at a
    precision."""
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
    oldest = _oldest(precision)
    if capability < oldest:
        raise PolicyError(
            f'{torch.cuda.get_device_name()} has compute capability {capability}, but {oldest} is '
            f"needed for precision '{precision}'; choose 'bf16'"
        )


def does_not_fit(precision: str, batch: int) -> str:
    """Say that the device has not enough memory, what it has, and what would need less on it."""
    smaller = SMALLER.get(precision)
    if smaller and torch.cuda.get_device_capability() < _oldest(smaller):
        smaller = None
    less = [*([smaller] if smaller else []), *(['a smaller batch'] if batch > 1 else [])]
    choose = f', or choose {" or ".join(less)}' if less else ''
    free, total = (value / 2**30 for value in torch.cuda.mem_get_info())
    return (
        f'does not fit at {precision} on {torch.cuda.get_device_name()} ({free:.1f} of '
        f'{total:.1f} GiB free); stop what else uses it{choose}'
    )


def _oldest(precision: str) -> tuple[int, int]:
    return OLDEST_OF_PRECISION.get(precision, OLDEST_CAPABILITY)
